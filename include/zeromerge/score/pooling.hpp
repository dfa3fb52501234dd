// Pooling along entries, as scores over a window do it so that neighbours of an attended entry stay too. A
// place looks at `kernel` places from kernel / 2 before it on. Cost: kernel * n.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

namespace zeromerge {

namespace detail {

// to[j] = finish(fold over the places that j looks at).
template <class Fold, class Finish>
std::vector<float> pool(std::span<const float> from, std::size_t kernel, const Fold& fold,
                        const Finish& finish) {
  const std::size_t before = kernel / 2;
  std::vector<float> to(from.size());
  for (std::size_t j = 0; j < from.size(); ++j) {
    const std::size_t first = j > before ? j - before : 0;
    const std::size_t last = std::min(from.size(), j + std::max<std::size_t>(kernel, 1) - before);
    float x = from[first];
    for (std::size_t i = first + 1; i < last; ++i) x = fold(x, from[i]);
    to[j] = finish(x);
  }
  return to;
}

}  // namespace detail

// The sum divided by `kernel`, also at the ends, where zeros are looked at.
inline std::vector<float> average_pool(std::span<const float> from, std::size_t kernel) {
  const float share = 1.0f / static_cast<float>(std::max<std::size_t>(kernel, 1));
  return detail::pool(
      from, kernel, [](float a, float b) { return a + b; }, [&](float sum) { return sum * share; });
}

// The largest; nothing beyond the ends is looked at.
inline std::vector<float> maximum_pool(std::span<const float> from, std::size_t kernel) {
  return detail::pool(
      from, kernel, [](float a, float b) { return std::max(a, b); }, [](float x) { return x; });
}

}  // namespace zeromerge
