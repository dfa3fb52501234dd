// Budgets that share out over all heads of all layers. They want to see all layers at once, at the end of a
// prompt (the peak is then the whole prompt's cache); asked layer by layer, so that one layer's prompt is
// held at a time, they go on from what others have got, in whatever order layers come.
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
    const std::size_t asked =
        std::transform_reduce(query.importance.begin(), query.importance.end(), std::size_t{0}, std::plus<>(),
                              [](const auto& head) { return head.size(); });
    const std::size_t best = due(query, asked);
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
    if (!profile) return std::vector<std::size_t>(query.heads(), each);
    const std::size_t lowest = std::min(each, CapacityBounds(amount, query, floor).lowest_with(query.beside));
    return detail::of_asked(detail::apportion_by(*profile, query, mean(query), each, lowest), query);
  }

  // Entries beside the first stages for the layers that are asked about, of whose entries `asked` compete.
  std::size_t due(const BudgetQuery& query, std::size_t asked) const {
    const std::size_t each = mean(query) - mean_first(query);
    const std::size_t heads = query.heads();
    if (query.progress == nullptr) return each * heads;
    const BudgetProgress& progress = *query.progress;
    const std::size_t all =
        std::accumulate(progress.kv_heads.begin(), progress.kv_heads.end(), std::size_t{0});
    const std::size_t waiting = all - progress.ended - heads;
    const auto left = static_cast<std::size_t>(
        std::max<std::ptrdiff_t>(0, static_cast<std::ptrdiff_t>(each * all) - progress.spent));
    if (waiting == 0) return left;  // the last layers', so that the total is exact
    if (const std::size_t even = left * heads / (heads + waiting); asked <= even) return even;  // it fits
    // No more is left than layers like these can hold.
    return std::min(left,
                    std::max(by_threshold(query, each), left - std::min(left, asked * waiting / heads)));
  }

  // How many of the values asked about reach the one that just as many of those known do as their heads'
  // share of the total, `each` on average.
  static std::size_t by_threshold(const BudgetQuery& query, std::size_t each) {
    std::vector<float> all = query.progress->best;
    for (const auto& head : query.importance) all.insert(all.end(), head.begin(), head.end());
    const float threshold = least_of_best(all, each * (query.progress->known + query.heads()));
    std::size_t reach = 0;
    for (const auto& head : query.importance)
      reach += static_cast<std::size_t>(
          std::count_if(head.begin(), head.end(), [&](float x) { return x >= threshold; }));
    return reach;
  }

  // The least of the `count` highest.
  static float least_of_best(std::vector<float>& values, std::size_t count) {
    count = std::min(count, values.size());
    if (count == 0) return std::numeric_limits<float>::infinity();
    const auto last = values.begin() + static_cast<std::ptrdiff_t>(count - 1);
    std::nth_element(values.begin(), last, values.end(), std::greater<>());
    return *last;
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
    const std::vector<std::size_t> heads = heads_of_all(query);
    const std::size_t entries = mean(query);
    const std::size_t beside = std::min(entries, query.beside);
    std::vector<double> weights;
    for (std::size_t l = 0; l < heads.size(); ++l) {
      const double place =
          heads.size() > 1 ? static_cast<double>(l) / static_cast<double>(heads.size() - 1) : 0.5;
      weights.insert(weights.end(), heads[l], (2.0 - 1.0 / beta) * (1.0 - place) + place / beta);
    }
    auto all =
        apportion(weights, (entries - beside) * weights.size(), 0, std::max(entries, query.tokens) - beside);
    for (std::size_t& capacity : all) capacity += beside;
    fill_groups(all, query);
    return query.progress == nullptr ? all : of_places(all, heads, query.progress->asked);
  }

 private:
  // Of every layer of the pyramid, in their order.
  static std::vector<std::size_t> heads_of_all(const BudgetQuery& query) {
    if (query.progress != nullptr) return query.progress->kv_heads;
    std::vector<std::size_t> heads(query.layers);
    for (std::size_t l = 0; l < heads.size(); ++l) heads[l] = query.heads_of(l);
    return heads;
  }

  // Of the capacities of all layers those of some.
  static std::vector<std::size_t> of_places(const std::vector<std::size_t>& all,
                                            const std::vector<std::size_t>& heads,
                                            const std::vector<std::size_t>& places) {
    std::vector<std::size_t> some;
    for (const std::size_t place : places) {
      const auto layer = heads.begin() + static_cast<std::ptrdiff_t>(place);
      const auto from = all.begin() + std::accumulate(heads.begin(), layer, std::ptrdiff_t{0});
      some.insert(some.end(), from, from + static_cast<std::ptrdiff_t>(*layer));
    }
    return some;
  }
};

}  // namespace zeromerge
