// How many entries each head of a layer may keep. A budget answers once per prompt (or re-allocation), never
// per decoded token.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "zeromerge/budget/amount.hpp"
#include "zeromerge/budget/apportion.hpp"
#include "zeromerge/budget/profile.hpp"

namespace zeromerge {

// What a budget may look at.
struct BudgetQuery {
  std::size_t layer = 0;
  std::size_t kv_heads = 1;
  std::size_t tokens = 0;  // seen so far
  std::size_t least = 0;   // what a share is lifted to; a count is taken as it is
  std::size_t needed = 0;  // no head can do with fewer
  std::span<const std::vector<float>> importance =
      {};  // [kv_heads][entries], filled if the budget needs_importance
};

// Entries per head: on average, and what none gets less than. `floor` is a share of the average.
struct CapacityBounds {
  std::size_t mean;
  std::size_t lowest;
  CapacityBounds(const Amount& amount, const BudgetQuery& query, double floor) noexcept
      : mean(amount.is_share ? std::max(amount.of(query.tokens), query.least) : amount.of(query.tokens)),
        lowest(std::max(std::min(mean, std::max(query.least, query.needed)),
                        static_cast<std::size_t>(floor * static_cast<double>(mean)))) {}
};

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

  std::vector<std::size_t> capacities(const BudgetQuery& query) const {
    const auto [mean, lowest] = CapacityBounds(amount, query, floor);
    const std::size_t total = mean * query.kv_heads;
    const auto won = winners(query.importance, total);
    std::vector<double> weights(query.kv_heads);
    for (std::size_t h = 0; h < query.kv_heads; ++h)
      weights[h] = floor * static_cast<double>(mean) + (1.0 - floor) * static_cast<double>(won[h]);
    return apportion(weights, total, lowest, std::max(mean, query.tokens));
  }

 private:
  // How many of each head's entries are among the `best` of the layer; ties go to the lower head, then the
  // lower entry.
  static std::vector<std::size_t> winners(std::span<const std::vector<float>> importance, std::size_t best) {
    struct Candidate {
      float value;
      std::size_t head;
    };
    std::vector<Candidate> all;
    for (std::size_t h = 0; h < importance.size(); ++h)
      for (const float value : importance[h]) all.push_back({value, h});
    best = std::min(best, all.size());
    std::stable_sort(all.begin(), all.end(),
                     [](const Candidate& a, const Candidate& b) { return a.value > b.value; });
    std::vector<std::size_t> won(importance.size());
    for (std::size_t i = 0; i < best; ++i) ++won[all[i].head];
    return won;
  }
};

// A measured table says how the heads of all layers share: the total over the table's heads is that of
// UniformBudget.
struct ProfileBudget {
  Amount amount;
  std::shared_ptr<const HeadProfile> profile;
  double floor = 0.25;  // of the uniform capacity
  static constexpr bool needs_importance = false;

  std::vector<std::size_t> capacities(const BudgetQuery& query) const {
    if (query.layer >= profile->layers() || query.kv_heads != profile->kv_heads())
      fail("profile: it has ", profile->layers(), " layers of ", profile->kv_heads(),
           " kv heads, the cache asks for layer ", query.layer, " with ", query.kv_heads);
    const auto [mean, lowest] = CapacityBounds(amount, query, floor);
    const double used =
        query.tokens == 0 ? 1.0 : static_cast<double>(mean) / static_cast<double>(query.tokens);
    const auto weights = profile->shares(used);
    const auto all = apportion(weights, mean * weights.size(), lowest, std::max(mean, query.tokens));
    const auto first = all.begin() + static_cast<std::ptrdiff_t>(query.layer * query.kv_heads);
    return {first, first + static_cast<std::ptrdiff_t>(query.kv_heads)};
  }
};

// Any of them, chosen at run time: a budget is asked so rarely that the choice costs nothing.
struct AnyBudget {
  std::variant<Unlimited, UniformBudget, AdaptiveBudget, ProfileBudget> choice;
  static constexpr bool needs_importance = true;
  std::vector<std::size_t> capacities(const BudgetQuery& query) const {
    return std::visit([&](const auto& budget) { return budget.capacities(query); }, choice);
  }
};

}  // namespace zeromerge
