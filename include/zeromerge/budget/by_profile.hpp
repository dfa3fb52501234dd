// How a head profile shares out entries over the heads of all its layers, for budgets that follow one.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "zeromerge/budget/apportion.hpp"
#include "zeromerge/budget/budget_query.hpp"
#include "zeromerge/budget/profile.hpp"
#include "zeromerge/core/errors.hpp"

namespace zeromerge::detail {

// Entries [profile.layers()][kv_heads], `each` on average and none less than `lowest`, by the shares at a
// budget of `mean` entries of the tokens seen. The sum is exact; lowest is at most each. Throws Error if the
// layers asked about are not the profile's.
inline std::vector<std::size_t> apportion_by(const HeadProfile& profile, const BudgetQuery& query,
                                             std::size_t mean, std::size_t each, std::size_t lowest) {
  for (std::size_t i = 0; i < query.layers; ++i)
    if (query.number(i) >= profile.layers() || query.heads_of(i) != profile.kv_heads())
      fail("profile: it has ", profile.layers(), " layers of ", profile.kv_heads(),
           " kv heads, the cache asks for layer ", query.number(i), " with ", query.heads_of(i));
  const double used = query.tokens == 0 ? 1.0 : static_cast<double>(mean) / static_cast<double>(query.tokens);
  const auto weights = profile.shares(used);
  return apportion(weights, each * weights.size(), lowest, std::max(each, query.tokens));
}

// Of all heads of a model those of the layers asked about, which apportion_by has seen to be like the
// profile's.
inline std::vector<std::size_t> of_asked(std::span<const std::size_t> all, const BudgetQuery& query) {
  std::vector<std::size_t> asked;
  for (std::size_t i = 0; i < query.layers; ++i) {
    const auto layer = all.subspan(query.number(i) * query.heads_of(i), query.heads_of(i));
    asked.insert(asked.end(), layer.begin(), layer.end());
  }
  return asked;
}

}  // namespace zeromerge::detail
