// The border checks of a call: shapes, and every value finite and storable. Values are looked at as bit
// patterns, so that this holds under -ffast-math.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include "zeromerge/core/element.hpp"
#include "zeromerge/core/geometry.hpp"
#include "zeromerge/core/rows.hpp"
#include "zeromerge/kernels/kernels.hpp"

namespace zeromerge::detail {

// The largest magnitude of the view, as f32 bits; NaN and infinity compare above every finite value.
inline std::uint32_t largest_bits(const RowView& v) noexcept {
  const bool packed = v.head_stride == static_cast<std::ptrdiff_t>(v.head_dim * element_size(v.type));
  const std::size_t runs = packed ? 1 : v.heads;  // heads that follow one another are one run
  const std::size_t n = packed ? v.heads * v.head_dim : v.head_dim;
  std::uint32_t most = 0;
  for (std::size_t t = 0; t < v.tokens; ++t)
    for (std::size_t h = 0; h < runs; ++h) {
      const void* row = v.row(t, h);
      most = std::max(most, v.type == Element::f32
                                ? kernels::largest_magnitude(static_cast<const std::uint32_t*>(row), n)
                                : kernels::largest_magnitude(static_cast<const std::uint16_t*>(row), n));
    }
  if (v.type == Element::f16)
    return std::bit_cast<std::uint32_t>(to_f32(f16{static_cast<std::uint16_t>(most)}));
  return v.type == Element::bf16 ? most << 16 : most;
}

// Throws Error unless every value is finite and its magnitude at most `limit`.
inline void check_values(const char* name, const RowView& v, float limit, const char* remedy) {
  const std::uint32_t most = largest_bits(v);
  if (most >= 0x7f800000u)
    fail(name, ": a value is not finite (NaN or infinity); check the model's activations");
  const float magnitude = std::bit_cast<float>(most);
  if (magnitude > limit) fail(name, ": a value of magnitude ", magnitude, " exceeds ", limit, "; ", remedy);
}

// Queries of `tokens` tokens and where their attention goes.
inline void check_queries(const LayerShape& g, const RowView& q, const OutView& out, std::size_t tokens) {
  check_shape("q", q, tokens, g.query_heads, g.head_dim);
  check_shape("out", out, tokens, g.query_heads, g.head_dim);
  check_values("q", q, 60000.0f / g.attention_scale(), "scale the queries down");
}

// Keys or values of `tokens` tokens, which are stored as `type`.
inline void check_entries(const LayerShape& g, const char* name, const RowView& rows, std::size_t tokens,
                          StorageType type) {
  check_shape(name, rows, tokens, g.kv_heads, g.head_dim);
  check_values(name, rows, largest_storable(type), "store it as bf16 or f32");
}

// Logits of attention sinks: one per query head, or none.
inline void check_sinks(const LayerShape& g, std::span<const float> sinks) {
  if (!sinks.empty() && sinks.size() != g.query_heads)
    fail("sinks: expected ", g.query_heads, " logits, one per query head, got ", sinks.size());
  for (const float x : sinks)
    if ((std::bit_cast<std::uint32_t>(x) & 0x7fffffffu) >= std::bit_cast<std::uint32_t>(1e30f))
      fail("sinks: a logit of ", x, " is not finite");
}

}  // namespace zeromerge::detail
