// Ratings of a window's queries, pooled along the entries before it (score/window_attention.hpp): neighbours
// of an attended entry stay too. The window's own entries are always kept. Cost: `kernel` floats an entry.
#pragma once

#include "zeromerge/kernels/cuda/device.hpp"
#include "zeromerge/kernels/cuda/layout.hpp"
#include "zeromerge/score/always_kept.hpp"

namespace zeromerge::cuda {

struct PoolArguments {
  const HeadState* states;  // [heads]
  const float* from;        // [heads][stride]
  float* to;                // [heads][stride]
  std::uint32_t stride;
  std::uint32_t count;   // heads
  std::uint32_t window;  // newest entries
  std::uint32_t kernel;  // places that one looks at, from kernel / 2 before it on
  std::uint32_t maximum;
};

inline constexpr unsigned kPoolThreads = 256;

// grid (blocks of entries, heads). A template so that several files may include it.
template <unsigned kThreads>
ZEROMERGE_KERNEL(kThreads)
pool_ratings(PoolArguments a) {
  const unsigned size = GlobalSpan<const HeadState>(a.states, a.count).at(block_y()).size;
  const unsigned j = block_x() * kThreads + thread_index();
  if (j >= size) return;
  const unsigned seen = size - (a.window < size ? a.window : size);
  const std::size_t row = std::size_t{block_y()} * a.stride;
  const GlobalSpan<const float> from(a.from + row, a.stride);
  float x = kAlwaysKept;
  if (j < seen) {
    const unsigned before = a.kernel / 2;
    const unsigned first = j > before ? j - before : 0;
    const unsigned last = j + a.kernel - before < seen ? j + a.kernel - before : seen;
    x = from.at(first);
    for (unsigned i = first + 1; i < last; ++i) {
      const float y = from.at(i);
      x = a.maximum == 0 ? x + y : x < y ? y : x;
    }
    if (a.maximum == 0) x /= static_cast<float>(a.kernel);
  }
  GlobalSpan<float>(a.to + row, a.stride)[j] = x;
}

}  // namespace zeromerge::cuda
