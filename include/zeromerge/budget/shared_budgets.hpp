// Budgets that share out over all heads of all layers. They want to see all layers at once, at the end of a
// prompt (the peak is then the whole prompt's cache); asked layer by layer, so that one layer's prompt is
// held at a time, they go on from what the layers before got.
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <span>
#include <vector>

#include "zeromerge/budget/apportion.hpp"
#include "zeromerge/budget/budget_query.hpp"
#include "zeromerge/budget/by_profile.hpp"
#include "zeromerge/budget/fill_groups.hpp"
#include "zeromerge/budget/profile.hpp"
#include "zeromerge/budget/winners.hpp"

namespace zeromerge {

// Two stages: every head first keeps a share of the uniform capacity, its first and last tokens among them,
// by the running score; what is left of the total goes to the entries that the score of whole prompts
// (without one, the running score) ranks highest over all heads and layers. first = 0: one global ranking
// beside the first and last tokens. With a profile the first stages of all heads are shared out by it, their
// total as without.
struct TwoStageBudget {
  Amount amount;
  double first = 0.3;                                    // of the uniform capacity
  std::shared_ptr<const HeadProfile> profile = nullptr;  // or none
  double floor = 0.45;                                   // of a first stage by the profile, likewise
  static constexpr bool needs_importance = true;
  static constexpr bool needs_all_layers = true;

  std::size_t mean(const BudgetQuery& query) const noexcept {
    return CapacityBounds(amount, query, 0.0).mean;
  }
  std::vector<Filling> fillings(const BudgetQuery& query) const {
    const std::size_t entries = mean(query);
    std::vector<Filling> all;
    const bool fits = query.tokens <= entries;  // then in every head, however long its first stage is
    for (const std::size_t stage : first_stages(query))
      all.push_back({entries, stage, !profile || fits ? entries : stage});
    return all;
  }

  // query.importance: of the entries that the first stage leaves over; none: what the first stage gives.
  std::vector<std::size_t> capacities(const BudgetQuery& query) const {
    std::vector<std::size_t> all = first_stages(query);
    if (query.importance.empty()) return all;
    const std::size_t total = (mean(query) - mean_first(query)) * all.size();
    const std::size_t asked =
        std::transform_reduce(query.importance.begin(), query.importance.end(), std::size_t{0}, std::plus<>(),
                              [](const auto& head) { return head.size(); });
    const std::size_t best = due(query, asked, total);
    if (asked <= best) {  // everything fits, and what is left over lets all heads grow alike
      for (std::size_t h = 0; h < all.size(); ++h)
        all[h] += query.importance[h].size() + (best - asked + all.size() - 1 - h) / all.size();
      return all;
    }
    const auto won = detail::winners(query.importance, best);
    for (std::size_t h = 0; h < all.size(); ++h) all[h] += won[h];
    fill_groups(all, query);
    return all;
  }

 private:
  // What the first stages hold on average.
  std::size_t mean_first(const BudgetQuery& query) const noexcept {
    return CapacityBounds(amount, query, first).lowest_with(query.beside);
  }

  // Of the heads asked about.
  std::vector<std::size_t> first_stages(const BudgetQuery& query) const {
    const std::size_t each = mean_first(query);
    if (!profile) return std::vector<std::size_t>(query.layers * query.kv_heads, each);
    const std::size_t lowest = std::min(each, CapacityBounds(amount, query, floor).lowest_with(query.beside));
    return detail::of_asked(detail::apportion_by(*profile, query, mean(query), each, lowest), query);
  }

  // Entries for those that are asked about, of whom `asked` compete; `total`: their share.
  static std::size_t due(const BudgetQuery& query, std::size_t asked, std::size_t total) {
    if (query.progress == nullptr) return total;
    BudgetProgress& progress = *query.progress;
    const std::size_t left = total * progress.layers - std::min(total * progress.layers, progress.spent);
    const std::size_t layers = progress.layers - progress.done++;  // among them
    const std::size_t ranked = by_threshold(query.importance, total, progress);
    std::size_t entries = left;  // the last layer's, so that the total is exact
    if (layers > 1 && asked <= left / layers)
      entries = left / layers;  // it fits
    else if (layers > 1)        // no more is left than layers like this one can hold
      entries = std::min(left, std::max(ranked, left - std::min(left, asked * (layers - 1))));
    progress.spent += entries;
    return entries;
  }

  // How many of a layer's values reach the one that just as many of those seen so far do as their layers'
  // share of the total.
  static std::size_t by_threshold(std::span<const std::vector<float>> values, std::size_t layer_total,
                                  BudgetProgress& progress) {
    for (const auto& head : values) progress.best.insert(progress.best.end(), head.begin(), head.end());
    (void)keep_best(progress.best, layer_total * progress.layers);  // no more of them can ever matter
    const float threshold = keep_best(std::vector<float>(progress.best), layer_total * progress.done);
    if (progress.done == progress.layers) progress.best = {};
    std::size_t reach = 0;
    for (const auto& head : values)
      reach += static_cast<std::size_t>(
          std::count_if(head.begin(), head.end(), [&](float x) { return x >= threshold; }));
    return reach;
  }

  // Cuts `values` to the `count` highest; the least of these.
  template <class Values>
  static float keep_best(Values&& values, std::size_t count) {
    count = std::min(count, values.size());
    if (count == 0) {
      values.clear();
      return std::numeric_limits<float>::infinity();
    }
    const auto last = values.begin() + static_cast<std::ptrdiff_t>(count - 1);
    std::nth_element(values.begin(), last, values.end(), std::greater<>());
    const float least = *last;
    values.resize(count);
    return least;
  }
};

// A pyramid over the layers (PyramidKV, arXiv 2406.02069): beside the first and last tokens, which every head
// keeps, from 2 B - B / beta entries a head in the first layer to B / beta in the last, in equal steps, B on
// average.
struct PyramidBudget {
  Amount amount;
  double beta = 20.0;
  static constexpr bool needs_importance = false;
  static constexpr bool needs_all_layers = true;

  std::size_t mean(const BudgetQuery& query) const noexcept {
    return CapacityBounds(amount, query, 0.0).mean;
  }
  std::vector<std::size_t> capacities(const BudgetQuery& query) const {
    const std::size_t layers = query.progress != nullptr ? query.progress->layers : query.layers;
    const std::size_t first = query.progress != nullptr ? query.progress->done++ : 0;
    const std::size_t entries = mean(query);
    const std::size_t beside = std::min(entries, query.beside);
    std::vector<double> weights(layers * query.kv_heads);
    for (std::size_t i = 0; i < weights.size(); ++i) {
      const double place =
          layers > 1 ? static_cast<double>(i / query.kv_heads) / static_cast<double>(layers - 1) : 0.5;
      weights[i] = (2.0 - 1.0 / beta) * (1.0 - place) + place / beta;
    }
    auto all =
        apportion(weights, (entries - beside) * weights.size(), 0, std::max(entries, query.tokens) - beside);
    for (std::size_t& capacity : all) capacity += beside;
    fill_groups(all, query);
    const auto from = all.begin() + static_cast<std::ptrdiff_t>(first * query.kv_heads);
    return {from, from + static_cast<std::ptrdiff_t>(query.layers * query.kv_heads)};
  }
};

}  // namespace zeromerge
