// What the layers of a cache share.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "zeromerge/budget/budget_query.hpp"
#include "zeromerge/cache/ask_budget.hpp"
#include "zeromerge/cache/workspace.hpp"
#include "zeromerge/core/geometry.hpp"
#include "zeromerge/core/ledger.hpp"
#include "zeromerge/core/parallel.hpp"
#include "zeromerge/core/rope.hpp"

namespace zeromerge {

template <class P>
class LayerCache;

// Owned by the cache, so that a layer can be moved with it.
template <class P>
struct LayerContext {
  Geometry geometry;
  P policy;
  Executor executor;
  std::shared_ptr<Workspace> workspace;
  std::size_t chunk;                               // tokens of a prompt taken at once in bounded mode
  std::vector<std::shared_ptr<const Rope>> ropes;  // [layers], none null if the policy needs them
  std::size_t first_layer;                         // the model's number of layer 0
  detail::HeadDims dims{};                         // of all layers
  std::shared_ptr<ByteLedger> ledger = std::make_shared<ByteLedger>();  // checkpoints may outlive the cache
  std::span<LayerCache<P>> layers{};                                    // [sequences][layers]

  bool shares_budget() const noexcept { return needs_all_layers(policy.budget); }
  std::size_t heads() const noexcept {
    std::size_t sum = 0;
    for (std::size_t l = 0; l < geometry.layers; ++l) sum += geometry.shape(l).kv_heads;
    return sum;
  }

  // The layers of a sequence.
  std::span<LayerCache<P>> of(std::size_t sequence) const {
    return layers.subspan(sequence * geometry.layers, geometry.layers);
  }
};

}  // namespace zeromerge
