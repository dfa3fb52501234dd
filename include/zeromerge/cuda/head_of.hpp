// Heads of the host's cache in the form in which a device takes them.
#pragma once

#include <cstddef>
#include <vector>

#include "zeromerge/cache/any_cache.hpp"
#include "zeromerge/cuda/head_copy.hpp"
#include "zeromerge/cuda/head_plan.hpp"

namespace zeromerge::cuda {

// Head h of a layer. Throws Error unless its prompt has ended.
inline HeadCopy head_of(const AnyLayer& layer, std::size_t h, std::size_t head_dim) {
  if (layer.in_prompt())
    fail("cuda: a layer of the host is in the middle of a prompt of ", layer.tokens(),
         " tokens; call finish_prompt() there first");
  const zeromerge::HeadState& from = layer.state(h);
  const std::size_t n = layer.entries(h);
  HeadCopy head;
  head.state = {device_count(n),
                device_count(layer.tokens()),
                device_count(from.division.capacity),
                device_count(from.division.sinks),
                device_count(from.division.residual),
                device_count(from.division.recent),
                device_count(from.residuals),
                device_count(from.rated),
                device_count(from.ring_next),
                from.ring ? 1u : 0u,
                device_count(from.held_sum)};
  head.keys.resize(n * head_dim);
  head.values.resize(n * head_dim);
  for (std::size_t j = 0; j < n; ++j) {
    layer.read_key(h, j, head.keys.data() + j * head_dim);
    layer.read_value(h, j, head.values.data() + j * head_dim);
    head.score.push_back(layer.score(h, j));
    head.mass.push_back(layer.mass(h, j));
    head.position.push_back(device_count(layer.position(h, j)));
  }
  return head;
}
inline std::vector<HeadCopy> heads_of(const AnyLayer& layer, const Geometry& geometry) {
  std::vector<HeadCopy> all;
  for (std::size_t h = 0; h < geometry.kv_heads; ++h) all.push_back(head_of(layer, h, geometry.head_dim));
  return all;
}

}  // namespace zeromerge::cuda
