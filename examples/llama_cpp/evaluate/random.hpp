// The numbers that generated tasks are drawn with: the same on every platform, unlike those of the standard
// library's distributions. SplitMix64, whose draws below n reject what would make some likelier.
#pragma once

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

namespace evaluate {

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }

  // n: at least 1.
  std::uint64_t below(std::uint64_t n) {
    const std::uint64_t surplus = (UINT64_MAX % n + 1) % n;  // 2^64 mod n
    for (;;)
      if (const std::uint64_t x = next(); x <= UINT64_MAX - surplus) return x % n;
  }

  // Fisher-Yates from the end.
  template <class T>
  void shuffle(std::vector<T>& items) {
    for (std::size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[below(i)]);
  }

  // k of 0..n-1 in the order drawn: Fisher-Yates from the front.
  std::vector<std::size_t> choose(std::size_t n, std::size_t k) {
    std::vector<std::size_t> all(n);
    std::iota(all.begin(), all.end(), std::size_t{0});
    for (std::size_t i = 0; i < k; ++i) std::swap(all[i], all[i + below(n - i)]);
    all.resize(k);
    return all;
  }

  // One of each of `strata` equal parts of 0..n-1, in a random order.
  std::vector<std::size_t> spread(std::size_t n, std::size_t strata) {
    std::vector<std::size_t> drawn;
    for (std::size_t t = 0; t < strata; ++t) {
      const std::size_t first = t * n / strata, end = (t + 1) * n / strata;
      drawn.push_back(first + below(end > first ? end - first : 1));
    }
    shuffle(drawn);
    return drawn;
  }

 private:
  std::uint64_t state_;
};

}  // namespace evaluate
