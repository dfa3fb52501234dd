// The border checks of a call: every value finite and storable. Done on bit patterns, so that they hold under
// -ffast-math.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "zeromerge/core/rows.hpp"

namespace zeromerge::detail {

// The largest magnitude of the view, as f32 bits; NaN and infinity compare above every finite value.
inline std::uint32_t largest_bits(const RowView& v) noexcept {
  std::uint32_t most = 0;
  for (std::size_t t = 0; t < v.tokens; ++t)
    for (std::size_t h = 0; h < v.heads; ++h) {
      const void* row = v.row(t, h);
      std::uint32_t top = 0;
      if (v.type == Element::f32) {
        const auto* x = static_cast<const float*>(row);
        for (std::size_t d = 0; d < v.head_dim; ++d) {
          const std::uint32_t magnitude = std::bit_cast<std::uint32_t>(x[d]) << 1;
          top = magnitude > top ? magnitude : top;
        }
        top >>= 1;
      } else {
        const auto* x = static_cast<const std::uint16_t*>(row);
        std::uint16_t half = 0;
        for (std::size_t d = 0; d < v.head_dim; ++d) {
          const auto magnitude = static_cast<std::uint16_t>(x[d] & 0x7fff);
          half = magnitude > half ? magnitude : half;
        }
        top = std::bit_cast<std::uint32_t>(v.type == Element::f16 ? to_f32(f16{half}) : to_f32(bf16{half}));
      }
      most = top > most ? top : most;
    }
  return most;
}

// Throws Error unless every value is finite and its magnitude at most `limit`.
inline void check_values(const char* name, const RowView& v, float limit, const char* remedy) {
  const std::uint32_t most = largest_bits(v);
  if (most >= 0x7f800000u)
    fail(name, ": a value is not finite (NaN or infinity); check the model's activations");
  const float magnitude = std::bit_cast<float>(most);
  if (magnitude > limit) fail(name, ": a value of magnitude ", magnitude, " exceeds ", limit, "; ", remedy);
}

}  // namespace zeromerge::detail
