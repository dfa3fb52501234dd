// How many entries each head of a layer may keep. A budget answers once per prompt (or re-allocation), never
// per decoded token.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "zeromerge/budget/amount.hpp"
#include "zeromerge/budget/apportion.hpp"
#include "zeromerge/budget/budget_query.hpp"
#include "zeromerge/budget/by_profile.hpp"
#include "zeromerge/budget/fill_groups.hpp"
#include "zeromerge/budget/profile.hpp"
#include "zeromerge/budget/shared_budgets.hpp"
#include "zeromerge/budget/winners.hpp"

namespace zeromerge {

// Keeps everything.
struct Unlimited {
  static constexpr bool needs_importance = false;
  std::vector<std::size_t> capacities(const BudgetQuery& query) const {
    return std::vector<std::size_t>(query.kv_heads, kUnlimited);
  }
};

// The same for every head (ZeroMerge as published).
struct UniformBudget {
  Amount amount;  // of the tokens seen, per head
  static constexpr bool needs_importance = false;
  std::vector<std::size_t> capacities(const BudgetQuery& query) const {
    return std::vector<std::size_t>(query.kv_heads, CapacityBounds(amount, query, 1.0).mean);
  }
};

// The heads of a layer compete: each gets entries in proportion to how many of its own are among the layer's
// best, above a floor (AdaKV; floor = the share of the uniform capacity that every head gets). The layer's
// total is that of UniformBudget.
struct AdaptiveBudget {
  Amount amount;
  double floor = 0.2;
  static constexpr bool needs_importance = true;

  std::size_t mean(const BudgetQuery& query) const noexcept {
    return CapacityBounds(amount, query, floor).mean;
  }
  std::vector<std::size_t> capacities(const BudgetQuery& query) const {
    const auto [mean, lowest] = CapacityBounds(amount, query, floor);
    const std::size_t total = mean * query.kv_heads;
    auto won = detail::winners(query.importance, total);
    won.resize(query.kv_heads);  // nothing is known yet: nobody has won
    std::vector<double> weights(query.kv_heads);
    for (std::size_t h = 0; h < query.kv_heads; ++h)
      weights[h] = floor * static_cast<double>(mean) + (1.0 - floor) * static_cast<double>(won[h]);
    auto all = apportion(weights, total, lowest, std::max(mean, query.tokens));
    fill_groups(all, query);
    return all;
  }
};

// A measured table says how the heads of all layers share: the total over the table's heads is that of
// UniformBudget.
struct ProfileBudget {
  Amount amount;
  std::shared_ptr<const HeadProfile> profile;
  double floor = 0.25;  // of the uniform capacity
  static constexpr bool needs_importance = false;

  std::size_t mean(const BudgetQuery& query) const noexcept {
    return CapacityBounds(amount, query, floor).mean;
  }
  std::vector<Filling> fillings(const BudgetQuery& query) const {
    return std::vector<Filling>(query.heads(), Filling{mean(query)});
  }

  std::vector<std::size_t> capacities(const BudgetQuery& query) const {
    const CapacityBounds bounds(amount, query, floor);
    auto all =
        detail::apportion_by(*profile, query, bounds.mean, bounds.mean, bounds.lowest_with(query.beside));
    fill_groups(all, query);
    return detail::of_asked(all, query);
  }
};

// As few entries as keep a head's attention output near that of all entries: the least capacity whose
// relative error over reference queries stays within `error` (see cache/prompt_end.hpp, which measures it),
// at most the tokens there are. `amount`: what a head is given that cannot be measured, because there are no
// queries; never too few.
struct ErrorBudget {
  Amount amount;
  double error = 0.1;
  static constexpr bool needs_importance = false;
  double target_error() const noexcept { return error; }
  std::vector<std::size_t> capacities(const BudgetQuery& query) const {
    if (!query.within_error.empty()) return {query.within_error.begin(), query.within_error.end()};
    return std::vector<std::size_t>(query.kv_heads,
                                    std::max(CapacityBounds(amount, query, 1.0).mean, query.needed));
  }
};

// Any of them, chosen at run time: a budget is asked so rarely that the choice costs nothing.
struct AnyBudget {
  std::variant<Unlimited, UniformBudget, AdaptiveBudget, ProfileBudget, TwoStageBudget, PyramidBudget,
               ErrorBudget>
      choice;
  static constexpr bool needs_importance = true;
  bool needs_all_layers() const noexcept {
    return std::visit([](const auto& budget) { return zeromerge::needs_all_layers(budget); }, choice);
  }
  std::vector<Filling> fillings(const BudgetQuery& query) const {
    return std::visit([&](const auto& budget) { return fillings_of(budget, query); }, choice);
  }
  double target_error() const noexcept {
    return std::visit([](const auto& budget) { return zeromerge::target_error(budget); }, choice);
  }
  Amount amount() const noexcept {
    return std::visit([](const auto& budget) { return amount_of(budget); }, choice);
  }
  std::size_t mean(const BudgetQuery& query) const {
    return std::visit([&](const auto& budget) { return mean_of(budget, query); }, choice);
  }
  std::vector<std::size_t> capacities(const BudgetQuery& query) const {
    return std::visit([&](const auto& budget) { return budget.capacities(query); }, choice);
  }
};

}  // namespace zeromerge
