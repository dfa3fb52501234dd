// What a layer has got of a budget that shares out over all layers. It belongs to the layer, so that it is
// forgotten, comes back and is copied with it: however layers end their prompts, go back or start anew, what
// is left for one is the budget less what the others hold.
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <span>
#include <vector>

#include "zeromerge/budget/budget_query.hpp"
#include "zeromerge/score/prompt_score.hpp"

namespace zeromerge {

struct BudgetShare {
  std::size_t tokens = 0;    // of the sequence, when the layer ended its prompt; 0: it has got nothing yet
  std::ptrdiff_t spent = 0;  // entries beside the first stage of its heads
  bool known = false;        // `best` are the highest values of the entries that competed for them
  std::vector<float> best{};

  // Nobody is left to compare them with.
  void forget_values() noexcept {
    known = false;
    best = {};
  }
};

namespace detail {

// `divided`: the capacities of a layer's heads; `values`: of the entries that competed, of which no more than
// `most` can matter.
template <class B>
BudgetShare share_of(const B& budget, const BudgetQuery& query, std::span<const std::size_t> capacities,
                     const Ratings& values, std::size_t most) {
  BudgetShare share{.tokens = query.tokens};
  const std::vector<Filling> fillings = fillings_of(budget, query);
  if (fillings.empty()) return share;  // it does not depend on what others have got
  share.known = !values.empty();
  for (std::size_t h = 0; h < capacities.size(); ++h)
    share.spent +=
        static_cast<std::ptrdiff_t>(capacities[h]) - static_cast<std::ptrdiff_t>(fillings[h].first);
  for (const auto& head : values) share.best.insert(share.best.end(), head.begin(), head.end());
  if (share.best.size() > most) {
    std::nth_element(share.best.begin(), share.best.begin() + static_cast<std::ptrdiff_t>(most),
                     share.best.end(), std::greater<>());
    share.best.resize(most);
    share.best.shrink_to_fit();
  }
  return share;
}

// What the budget is told of the layers of a sequence when some of them, whose numbers are `asked`, end a
// prompt of `tokens`. One that ends it alone leaves their share to all others, whenever they come; of several
// the others are those that have ended the same prompt or are at its end.
template <class Layers>
BudgetProgress progress_of(const Layers& layers, std::span<const std::size_t> asked, std::size_t tokens) {
  BudgetProgress progress;
  progress.asked.resize(asked.size());
  for (const auto& layer : layers) {
    const BudgetShare& share = layer.budget_share();
    const auto place =
        static_cast<std::size_t>(std::find(asked.begin(), asked.end(), layer.index()) - asked.begin());
    const bool ended = place == asked.size() && share.tokens == tokens;
    const bool waits = asked.size() == 1 || (layer.in_prompt() && layer.tokens() == tokens);
    if (place < asked.size())
      progress.asked[place] = progress.kv_heads.size();
    else if (!ended && !waits)
      continue;
    progress.kv_heads.push_back(layer.shape().kv_heads);
    if (!ended) continue;
    progress.ended += layer.shape().kv_heads;
    progress.spent += share.spent;
    if (!share.known) continue;
    progress.known += layer.shape().kv_heads;
    progress.best.insert(progress.best.end(), share.best.begin(), share.best.end());
  }
  return progress;
}

}  // namespace detail
}  // namespace zeromerge
