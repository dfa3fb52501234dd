// The shape of a model's attention: of every layer the same, or of each layer its own.
#pragma once

#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include "zeromerge/core/errors.hpp"

namespace zeromerge {

inline constexpr std::size_t kMaxHeadDim = 1024;

// One layer's attention.
struct LayerShape {
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

  bool operator==(const LayerShape&) const = default;

  // Throws Error unless every count is positive and kv_heads divides query_heads. `whose` stands in messages.
  void validate(const std::string& whose = "geometry") const {
    if (query_heads == 0 || kv_heads == 0 || head_dim == 0)
      fail(whose, ": query_heads, kv_heads and head_dim must be at least 1, got ", query_heads, ", ",
           kv_heads, ", ", head_dim);
    if (query_heads % kv_heads != 0)
      fail(whose, ": query_heads must be a multiple of kv_heads, got ", query_heads, " and ", kv_heads);
    if (head_dim > kMaxHeadDim) fail(whose, ": head_dim may be at most ", kMaxHeadDim, ", got ", head_dim);
    if (!(scale >= 0.0f) || !(scale < 1e6f)) fail(whose, ": scale must be in [0, 1e6), got ", scale);
    if (!(logit_softcap >= 0.0f) || !(logit_softcap < 1e6f))
      fail(whose, ": logit_softcap must be in [0, 1e6), got ", logit_softcap);
  }
};

struct Geometry {
  std::size_t layers = 1;
  // Of every layer, unless `shapes` says otherwise; see LayerShape.
  std::size_t query_heads = 1;
  std::size_t kv_heads = 1;
  std::size_t head_dim = 64;
  float scale = 0.0f;
  float logit_softcap = 0.0f;
  std::vector<LayerShape> shapes{};  // [layers] where layers differ; it then counts, and not the five above

  // Of a layer below `layers`.
  LayerShape shape(std::size_t layer) const {
    return shapes.empty() ? LayerShape{query_heads, kv_heads, head_dim, scale, logit_softcap} : shapes[layer];
  }

  // Where all layers are alike: as in LayerShape.
  std::size_t group() const noexcept { return query_heads / kv_heads; }
  float attention_scale() const noexcept {
    return LayerShape{query_heads, kv_heads, head_dim, scale, logit_softcap}.attention_scale();
  }

  // Throws Error unless there is a layer and each has a possible shape.
  void validate() const {
    if (layers == 0)
      fail("geometry: layers, query_heads, kv_heads and head_dim must be at least 1, got ", layers, ", ",
           query_heads, ", ", kv_heads, ", ", head_dim);
    if (!shapes.empty() && shapes.size() != layers)
      fail("geometry: expected a shape for each of ", layers, " layers, or none, got ", shapes.size());
    if (shapes.empty()) return shape(0).validate();
    for (std::size_t l = 0; l < layers; ++l) shapes[l].validate("geometry: layer " + std::to_string(l));
  }
};

}  // namespace zeromerge
