// What happens to a layer when a prompt has ended: its entries are rated, the heads get their capacities,
// those above theirs are compressed, what is stored takes its final form, values are fitted to it. A budget
// that shares out over all layers stands between rating and compressing, so the two are calls of their own.
#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "zeromerge/cache/ask_budget.hpp"
#include "zeromerge/cache/evict.hpp"
#include "zeromerge/cache/policy.hpp"
#include "zeromerge/merge/key_rounding.hpp"

namespace zeromerge {

// One layer's entries, rated at the end of a prompt.
struct PromptRatings {
  Ratings by_prompt;                        // [kv_heads][entries] by the score of whole prompts, or empty
  Ratings for_budget;                       // [kv_heads][...] what the budget compares, or empty
  std::vector<std::size_t> within_error{};  // see BudgetQuery
  std::size_t unscored = 0;                 // tokens that the running scores lacked before
  Ratings scores_before{};                  // [kv_heads][entries] if there were some
};

namespace detail {

// A layer as its cache lends it.
template <class P, class H>
struct PromptLayer {
  const P& policy;
  PromptView<H> view;
  std::span<H> heads;
  std::span<HeadState> states;
};

// Importance of every entry of a head by the running score.
template <class P, class H>
std::vector<float> running_importance(const P& policy, const H& head, std::size_t tokens) {
  std::vector<float> all(head.size());
  for (std::size_t j = 0; j < all.size(); ++j) all[j] = importance_of(policy, head, j, tokens);
  return all;
}

// The values of those entries that a head of `first` entries, filled by the running score, leaves over. Those
// that an earlier prompt's rating chose and that are still held rank above all others.
template <class P, class H>
std::vector<float> left_over(const P& policy, const H& head, const HeadState& state, const Filling& filling,
                             std::size_t tokens, std::span<const float> values) {
  const Division d = division_of(policy, filling.mean);
  const std::size_t rated = lasts(policy.prompt_score) ? state.rated : 0;
  const std::size_t from = d.sinks + state.residuals + rated;
  if (head.size() <= filling.first || head.size() < from + d.recent) return {};
  const std::size_t to = head.size() - d.recent;
  const std::size_t keep = std::min(to - from, filling.first - d.sinks - d.residual - d.recent - d.slack);
  const auto kept = best_slots(policy, head, from, to, keep, 0, tokens, {});
  std::vector<char> taken(head.size(), 0);
  for (const std::size_t slot : kept) taken[slot] = 1;
  std::vector<float> rest(rated, std::numeric_limits<float>::infinity());
  for (std::size_t j = from; j < to; ++j)
    if (!taken[j]) rest.push_back(values.empty() ? 0.0f : values[j]);
  return rest;
}

// Whether nothing has to leave, so that nobody need be rated.
template <class P, class H>
bool everything_fits(const PromptLayer<P, H>& layer, const BudgetQuery& query) {
  if (target_error(layer.policy.budget) > 0.0) return false;
  const auto fillings = fillings_of(layer.policy.budget, query);
  const auto capacities = layer.policy.budget.capacities(query);
  for (std::size_t h = 0; h < layer.heads.size(); ++h) {
    const bool stages = !fillings.empty() && fillings[h].in_stages();
    if (layer.heads[h].size() > (stages ? fillings[h].whole : capacities[h])) return false;
  }
  return true;
}

// Reference tokens by whose queries what is left out is measured.
inline constexpr std::size_t kMeasured = 64;

// One head in two forms, merged and with the rest dropped; what is nearer to the whole head's output stays.
// A head without merged entries has their places for others, and those of an earlier prompt compete for them.
template <class P, class H>
void keep_better(const PromptLayer<P, H>& layer, const ReferenceQueries<H>& references, std::size_t h,
                 H& merged, H& dropped, std::span<const float> ratings, const HeadState& before) {
  const H& head = layer.heads[h];
  HeadState state = before;
  state.division.residual = state.residuals = 0;
  if (before.division.by_prompt == before.division.context())  // all places go by the score of whole prompts
    state.division.by_prompt = state.division.context();
  compress(layer.policy, DropMerge{}, head, state, dropped, layer.view.tokens, ratings);
  const std::vector<float> outputs = references.outputs(h, head);
  if (references.error(h, outputs, merged) <= references.error(h, outputs, dropped)) return;
  merged.swap(dropped);
  layer.states[h] = state;
}

// A head that keeps everything has been rated as well: as many of its oldest entries as the score of whole
// prompts would have chosen stay like those of other heads, in the order of arrival.
template <class P, class H>
void count_rated(const PromptLayer<P, H>& layer, std::size_t h) noexcept {
  HeadState& state = layer.states[h];
  const std::size_t beside = state.division.sinks + state.residuals + state.division.recent;
  const std::size_t size = layer.heads[h].size();
  if (lasts(layer.policy.prompt_score) && size > beside)
    state.rated = std::max(state.rated, std::min(state.division.by_prompt, size - beside));
}

// Gives every head its division and compresses those that exceed it. Memory is taken one after another, the
// work is parallel. Returns those heads as they were, in place of the others empty ones.
template <class P, class H>
std::vector<H> fit_heads(const PromptLayer<P, H>& layer, std::span<const Division> divisions,
                         const Ratings& by_prompt) {
  std::optional<ReferenceQueries<H>> references;
  if (layer.policy.gated && layer.view.queries.tokens() != 0)
    references.emplace(layer.view, kMeasured, RefitParams{}.reach);
  std::vector<H> targets, others;
  const auto exceeds = [&](std::size_t h) { return layer.heads[h].size() > divisions[h].capacity; };
  for (std::size_t h = 0; h < layer.heads.size(); ++h)
    for (auto* made : {&targets, &others}) {
      made->push_back(layer.heads[h].sibling());
      if (exceeds(h) && (made == &targets || references)) made->back().fit(divisions[h].capacity + 1);
    }
  layer.view.executor(layer.heads.size(), [&](std::size_t h) {
    HeadState& state = layer.states[h];
    state.division = divisions[h];
    state.at_end = {divisions[h].capacity, divisions[h].mean};
    // A head that got smaller may have more merged entries than it now reserves places for; the surplus
    // competes.
    state.residuals = std::min(state.residuals, divisions[h].residual);
    if (!exceeds(h)) {
      if (!by_prompt.empty()) count_rated(layer, h);
      return;
    }
    const HeadState before = state;
    const auto ratings = by_prompt.empty() ? std::span<const float>{} : std::span<const float>(by_prompt[h]);
    compress(layer.policy, layer.heads[h], state, targets[h], layer.view.tokens, ratings);
    if (references) keep_better(layer, *references, h, targets[h], others[h], ratings, before);
  });
  for (std::size_t h = 0; h < layer.heads.size(); ++h)
    if (exceeds(h))
      layer.heads[h].swap(targets[h]);
    else if (layer.heads[h].capacity() > layer.heads[h].size())  // tokens have been truncated
      layer.heads[h].shrink();
  return targets;
}

// What is stored in groups once the prompt has ended.
template <class H>
void pack(H& head, const Division& division) {
  if (head.packs_late()) head.settle(head.size(), loose_rows(division));
}

// For a budget with an error in mind: the least capacity of each head whose output over reference queries
// stays within it as it will be stored, by bisection; empty if there are no queries to ask. What 4 bits alone
// do may be more than the bound: then all entries stay.
template <class P, class H>
std::vector<std::size_t> capacities_within(const PromptLayer<P, H>& layer, const Ratings& by_prompt,
                                           std::size_t needed) {
  const double error = target_error(layer.policy.budget);
  if (!(error > 0.0) || layer.view.queries.tokens() == 0) return {};
  const ReferenceQueries<H> references(layer.view, kMeasured, RefitParams{}.reach);
  std::vector<std::size_t> all(layer.heads.size());
  layer.view.executor(all.size(), [&](std::size_t h) {
    const H& head = layer.heads[h];
    ByteLedger scratch;  // the cache's own is for one thread
    const std::vector<float> outputs = references.outputs(h, head);
    const auto ratings = by_prompt.empty() ? std::span<const float>{} : std::span<const float>(by_prompt[h]);
    const auto enough = [&](std::size_t capacity) {
      HeadState state = layer.states[h];
      state.division = division_of(layer.policy, capacity);
      state.residuals = std::min(state.residuals, state.division.residual);
      H kept = head.sibling(&scratch);
      kept.fit(capacity + 1);
      compress(layer.policy, head, state, kept, layer.view.tokens, ratings);
      pack(kept, state.division);
      return references.error(h, outputs, kept) <= error;
    };
    std::size_t low = std::min(needed, head.size());
    all[h] = std::max(needed, head.size());
    for (std::size_t high = head.size(); low < high;) {
      const std::size_t middle = (low + high) / 2;
      if (enough(middle))
        all[h] = high = middle;
      else
        low = middle + 1;
    }
  });
  return all;
}

// Ratings of a layer's entries as they are. `query`: what its budget is asked.
template <class P, class H>
void rate_prompt(const PromptLayer<P, H>& layer, const BudgetQuery& query, PromptRatings& ratings) {
  const P& policy = layer.policy;
  if (policy.rates_prompts() && !everything_fits(layer, query))
    ratings.by_prompt = policy.prompt_score.rate(layer.view);
  ratings.within_error = capacities_within(layer, ratings.by_prompt, needed_capacity(policy));
  if (!policy.budget.needs_importance) return;
  const auto fillings = fillings_of(policy.budget, query);
  const bool stages = !fillings.empty() && fillings[0].in_stages();
  const bool by_prompt = !ratings.by_prompt.empty() && (stages || policy.prompt_share >= 1.0);
  ratings.for_budget.resize(layer.heads.size());
  layer.view.executor(layer.heads.size(), [&](std::size_t h) {
    const H& head = layer.heads[h];
    std::vector<float> values =
        by_prompt ? ratings.by_prompt[h] : running_importance(policy, head, layer.view.tokens);
    ratings.for_budget[h] =
        stages ? left_over(policy, head, layer.states[h], fillings[h], layer.view.tokens, values)
               : std::move(values);
  });
}

// Brings a layer to these divisions and its entries into their final form.
template <class P, class H>
void end_prompt(const PromptLayer<P, H>& layer, std::span<const Division> divisions,
                const PromptRatings& ratings) {
  const std::vector<H> before = fit_heads(layer, divisions, ratings.by_prompt);
  const PromptView<H>& view = layer.view;
  const RefitParams& refit = layer.policy.refit;
  std::optional<ReferenceQueries<H>> references;
  if (refit.references != 0 && view.queries.tokens() != 0)
    references.emplace(view, refit.references, refit.reach);
  if (references && refit.round_keys && layer.policy.key_type == StorageType::q4)
    view.executor(layer.heads.size(), [&](std::size_t h) {
      if (layer.states[h].division.precise) return;
      KeyRounding(query_moments(*references, h), key_damping(references->rows(), view.geometry.head_dim))
          .round(layer.heads[h], loose_entries(layer.states[h].division));
    });
  for (std::size_t h = 0; h < layer.heads.size(); ++h) pack(layer.heads[h], layer.states[h].division);
  if (!references) return;
  ValueRefit<H>(refit, *references).fit(before, layer.heads, view.executor);
}

}  // namespace detail

}  // namespace zeromerge
