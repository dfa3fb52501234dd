// What the layers of a cache share.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "zeromerge/budget/budget_query.hpp"
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
  std::size_t chunk;                 // tokens of a prompt taken at once in bounded mode
  std::shared_ptr<const Rope> rope;  // not null if the policy needs it
  ByteLedger ledger{};
  std::span<LayerCache<P>> layers{};       // [sequences][layers]
  std::vector<BudgetProgress> progress{};  // [sequences]

  bool shares_budget() const noexcept { return needs_all_layers(policy.budget); }

  // How far a budget that shares out over all layers has come with a prompt of `tokens`, where they end it
  // one after another; null: layers do not share theirs.
  BudgetProgress* progress_of(std::size_t sequence, std::size_t tokens) {
    if (!shares_budget() || geometry.layers < 2) return nullptr;
    BudgetProgress& p = progress[sequence];
    if (p.done >= geometry.layers || p.tokens != tokens) p = {.layers = geometry.layers, .tokens = tokens};
    return &p;
  }

  // The layers of a sequence.
  std::span<LayerCache<P>> of(std::size_t sequence) const {
    return layers.subspan(sequence * geometry.layers, geometry.layers);
  }
};

}  // namespace zeromerge
