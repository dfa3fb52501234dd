// A ranking over the entries of several heads.
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <numeric>
#include <span>
#include <vector>

namespace zeromerge {

namespace detail {

// How many of each head's values are among the `best` of all; ties go to the lower head.
inline std::vector<std::size_t> winners(std::span<const std::vector<float>> values, std::size_t best) {
  std::vector<float> all;
  for (const auto& head : values) all.insert(all.end(), head.begin(), head.end());
  best = std::min(best, all.size());
  std::vector<std::size_t> won(values.size());
  if (best == 0) return won;
  const auto last = all.begin() + static_cast<std::ptrdiff_t>(best - 1);
  std::nth_element(all.begin(), last, all.end(), std::greater<>());
  for (std::size_t h = 0; h < values.size(); ++h)
    won[h] = static_cast<std::size_t>(
        std::count_if(values[h].begin(), values[h].end(), [&](float x) { return x > *last; }));
  std::size_t left = best - std::accumulate(won.begin(), won.end(), std::size_t{0});
  for (std::size_t h = 0; h < values.size() && left != 0; ++h) {
    const auto ties = static_cast<std::size_t>(std::count(values[h].begin(), values[h].end(), *last));
    won[h] += std::min(ties, left);
    left -= std::min(ties, left);
  }
  return won;
}

}  // namespace detail

}  // namespace zeromerge
