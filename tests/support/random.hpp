// Seeded numbers that are the same with every standard library.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace zeromerge::test {

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next() {  // splitmix64
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  double uniform() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }  // [0, 1)
  double normal() {
    const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
    return radius * std::cos(6.283185307179586 * uniform());
  }
  std::size_t between(std::size_t least, std::size_t most) { return least + next() % (most - least + 1); }

 private:
  std::uint64_t state_;
};

inline std::vector<float> normals(Random& random, std::size_t n, double deviation = 1.0) {
  std::vector<float> x(n);
  for (float& y : x) y = static_cast<float>(deviation * random.normal());
  return x;
}

}  // namespace zeromerge::test
