// The shape of a model's attention, the same for all of its layers.
#pragma once

#include <cmath>
#include <cstddef>

#include "zeromerge/core/errors.hpp"

namespace zeromerge {

inline constexpr std::size_t kMaxHeadDim = 1024;

struct Geometry {
  std::size_t layers = 1;
  std::size_t query_heads = 1;
  std::size_t kv_heads = 1;
  std::size_t head_dim = 64;
  float scale = 0.0f;          // of q.k; 0 means 1 / sqrt(head_dim)
  float logit_softcap = 0.0f;  // c > 0: logit = c * tanh(scale * q.k / c); 0: none

  // Query heads that share one kv head.
  std::size_t group() const noexcept { return query_heads / kv_heads; }

  float attention_scale() const noexcept {
    return scale != 0.0f ? scale : 1.0f / std::sqrt(static_cast<float>(head_dim));
  }

  // Throws Error unless every count is positive and kv_heads divides query_heads.
  void validate() const {
    if (layers == 0 || query_heads == 0 || kv_heads == 0 || head_dim == 0)
      fail("geometry: layers, query_heads, kv_heads and head_dim must be at least 1, got ", layers, ", ",
           query_heads, ", ", kv_heads, ", ", head_dim);
    if (query_heads % kv_heads != 0)
      fail("geometry: query_heads must be a multiple of kv_heads, got ", query_heads, " and ", kv_heads);
    if (head_dim > kMaxHeadDim) fail("geometry: head_dim may be at most ", kMaxHeadDim, ", got ", head_dim);
    if (!(scale >= 0.0f) || !(scale < 1e6f)) fail("geometry: scale must be in [0, 1e6), got ", scale);
    if (!(logit_softcap >= 0.0f) || !(logit_softcap < 1e6f))
      fail("geometry: logit_softcap must be in [0, 1e6), got ", logit_softcap);
  }
};

}  // namespace zeromerge
