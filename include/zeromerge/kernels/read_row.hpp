// A caller's row, of whichever element type, in f32.
#pragma once

#include <cstddef>

#include "zeromerge/kernels/kernels.hpp"

namespace zeromerge::detail {

// to[i] = row[i] * factor for n elements.
inline void read_row(const void* row, Element type, std::size_t n, float factor, float* to) noexcept {
  switch (type) {
    case Element::f16:
      return kernels::widen(static_cast<const f16*>(row), n, factor, to);
    case Element::bf16:
      return kernels::widen(static_cast<const bf16*>(row), n, factor, to);
    default:
      return kernels::widen(static_cast<const float*>(row), n, factor, to);
  }
}

}  // namespace zeromerge::detail
