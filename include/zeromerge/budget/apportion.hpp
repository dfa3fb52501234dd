// Shares out a number of entries over heads in proportion to weights, each head between a floor and a cap,
// totals exact.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <span>
#include <vector>

namespace zeromerge {

// Real-valued c_h = clamp(t * w_h, floor, cap) with sum total, for the one t that fits; then rounded down,
// and what rounding left goes to the largest remainders (ties: the lower index). A total above what the caps
// allow gives the caps, one below what the floors need gives the floors.
inline std::vector<std::size_t> apportion(std::span<const double> weights, std::size_t total,
                                          std::size_t floor, std::size_t cap) {
  const std::size_t heads = weights.size();
  floor = std::min(floor, cap);
  if (total >= heads * cap) return std::vector<std::size_t>(heads, cap);
  if (total <= heads * floor) return std::vector<std::size_t>(heads, floor);
  const auto clamped = [&](double t, double w) {
    return std::clamp(t * w, static_cast<double>(floor), static_cast<double>(cap));
  };
  const auto sum = [&](double t) {
    return std::accumulate(weights.begin(), weights.end(), 0.0,
                           [&](double s, double w) { return s + clamped(t, w); });
  };
  double low = 0.0;
  double high = 1.0;
  while (high < 1e300 && sum(high) < static_cast<double>(total)) high *= 2.0;
  for (int i = 0; i < 200; ++i) {
    const double middle = 0.5 * (low + high);
    if (middle == low || middle == high) break;  // neighbours: it gets no nearer
    (sum(middle) < static_cast<double>(total) ? low : high) = middle;
  }
  std::vector<std::size_t> entries(heads);
  std::vector<double> rest(heads);
  for (std::size_t h = 0; h < heads; ++h) {
    const double exact = clamped(high, weights[h]);
    entries[h] = static_cast<std::size_t>(exact);
    rest[h] = exact - std::floor(exact);
  }
  std::vector<std::size_t> order(heads);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return rest[a] > rest[b]; });
  std::size_t given = std::accumulate(entries.begin(), entries.end(), std::size_t{0});
  for (std::size_t i = 0; given < total; i = (i + 1) % heads)
    if (entries[order[i]] < cap) {
      ++entries[order[i]];
      ++given;
    }
  for (std::size_t i = heads; given > total; i = i == 0 ? heads : i)
    if (--i; entries[order[i]] > floor) {
      --entries[order[i]];
      --given;
    }
  return entries;
}

}  // namespace zeromerge
