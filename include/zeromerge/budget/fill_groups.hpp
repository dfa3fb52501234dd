// Capacities of heads whose entries are stored in groups: what does not fill a group waits in a wider form
// and would cost more bytes than it is worth, so heads get whole groups.
#pragma once

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <span>
#include <vector>

#include "zeromerge/budget/budget_query.hpp"

namespace zeromerge {

// Rounds capacities down to query.loose and whole groups, and gives what that leaves over, group by group, to
// those that lost most (ties: the lower index); less than a group goes to the next of them, so that the total
// stays. So a head may end up to a group below what the budget promises it, but never below what it can do
// with. Heads that hold the whole prompt, or would with one group more, stay as they are.
inline void fill_groups(std::span<std::size_t> capacities, const BudgetQuery& query) {
  if (query.group <= 1) return;
  std::vector<std::size_t> lost(capacities.size());
  for (std::size_t h = 0; h < capacities.size(); ++h) {
    const std::size_t over = (capacities[h] - std::min(capacities[h], query.loose)) % query.group;
    const std::size_t down = capacities[h] - over;
    const bool keeps = down + query.group > query.tokens || down < std::max(query.needed, query.beside);
    lost[h] = keeps ? 0 : over;
  }
  std::vector<std::size_t> order;
  for (std::size_t h = 0; h < capacities.size(); ++h)
    if (lost[h] != 0) order.push_back(h);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return lost[a] > lost[b]; });
  std::size_t left = std::accumulate(lost.begin(), lost.end(), std::size_t{0});
  for (const std::size_t h :
       order) {  // as many as have lost something suffice, for nobody lost a whole group
    const std::size_t given = std::min(left, query.group);
    capacities[h] = capacities[h] - lost[h] + given;
    left -= given;
  }
}

}  // namespace zeromerge
