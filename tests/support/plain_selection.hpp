// Who is kept, by lists: choices by falling value that note how near they were, and capacities of heads.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <utility>
#include <vector>

namespace zeromerge::test {

// The least relative distance between what a choice took and what it left: below it f32 may choose otherwise.
class Gap {
 public:
  void note(double taken, double left) {
    least_ = std::min(least_, std::abs(taken - left) / (std::abs(taken) + std::abs(left) + 1e-300));
  }
  double least() const { return least_; }

 private:
  double least_ = 1.0;
};

// The `count` of these candidates with the highest values, which are by candidate.
inline std::vector<std::size_t> highest(std::vector<std::size_t> candidates, std::size_t count,
                                        const std::vector<double>& value, Gap& gap) {
  std::stable_sort(candidates.begin(), candidates.end(),
                   [&](std::size_t a, std::size_t b) { return value[a] > value[b]; });
  if (count != 0 && count < candidates.size())
    gap.note(value[candidates[count - 1]], value[candidates[count]]);
  candidates.resize(std::min(count, candidates.size()));
  return candidates;
}

// How many of each head's values are among the `count` highest of all.
inline std::vector<std::size_t> shares_won(const std::vector<std::vector<double>>& values, std::size_t count,
                                           Gap& gap) {
  std::vector<std::pair<double, std::size_t>> all;
  for (std::size_t h = 0; h < values.size(); ++h)
    for (const double x : values[h]) all.emplace_back(x, h);
  std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  if (count != 0 && count < all.size()) gap.note(all[count - 1].first, all[count].first);
  std::vector<std::size_t> won(values.size(), 0);
  for (std::size_t i = 0; i < std::min(count, all.size()); ++i) ++won[all[i].second];
  return won;
}

// `total` in proportion to weights, none less than `least` nor more than `most`; what rounding down leaves
// goes to the largest remainders. Who is bound is found by binding one after another.
inline std::vector<std::size_t> in_proportion(const std::vector<double>& weights, std::size_t total,
                                              std::size_t least, std::size_t most) {
  std::vector<double> exact(weights.size(), -1.0);
  for (bool again = true; again;) {
    again = false;
    double free = static_cast<double>(total);
    double sum = 0.0;
    for (std::size_t h = 0; h < weights.size(); ++h)
      (exact[h] >= 0.0 ? free : sum) += exact[h] >= 0.0 ? -exact[h] : weights[h];
    double worst = 1e-9;
    std::size_t bound = 0;
    for (std::size_t h = 0; h < weights.size(); ++h) {
      if (exact[h] >= 0.0) continue;
      const double x = free * weights[h] / sum;
      const double out = std::max(static_cast<double>(least) - x, x - static_cast<double>(most));
      if (out > worst) {
        worst = out;
        bound = h;
        again = true;
      }
    }
    if (again)
      exact[bound] = free * weights[bound] / sum < static_cast<double>(least) ? static_cast<double>(least)
                                                                              : static_cast<double>(most);
    else
      for (std::size_t h = 0; h < weights.size(); ++h)
        if (exact[h] < 0.0) exact[h] = free * weights[h] / sum;
  }
  std::vector<std::size_t> entries;
  for (const double x : exact) entries.push_back(static_cast<std::size_t>(x + 1e-9));
  std::vector<std::size_t> order(weights.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return exact[a] - static_cast<double>(entries[a]) > exact[b] - static_cast<double>(entries[b]) + 1e-9;
  });
  for (std::size_t i = 0; std::accumulate(entries.begin(), entries.end(), std::size_t{0}) < total; ++i)
    ++entries[order[i % order.size()]];
  return entries;
}

}  // namespace zeromerge::test
