// Rounding to a stored type by double arithmetic, independent of the bit tricks under test.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include "zeromerge/core/element.hpp"

namespace zeromerge::test {

struct Format {
  int digits;          // significant bits of a normal number
  int least_exponent;  // of the smallest subnormal
  double largest;
};

template <class T>
constexpr Format format_of() {
  if constexpr (std::is_same_v<T, f16>) return {11, -24, 65504.0};
  if constexpr (std::is_same_v<T, bf16>) return {8, -133, 0x1.fep127};
  return {24, -149, 0x1.fffffep127};
}

// Nearest, ties to even; infinity beyond half a unit above the largest.
template <class T>
double round_to(double x) {
  const Format f = format_of<T>();
  if (x == 0.0 || !std::isfinite(x)) return x;
  int exponent = 0;
  (void)std::frexp(x, &exponent);
  const double unit = std::ldexp(1.0, std::max(exponent - f.digits, f.least_exponent));
  const double y = std::nearbyint(x / unit) * unit;
  return std::abs(y) > f.largest ? std::copysign(std::numeric_limits<double>::infinity(), x) : y;
}

// The values as the type keeps them.
template <class T>
std::vector<float> kept_as(std::vector<float> x) {
  for (float& y : x) y = static_cast<float>(round_to<T>(static_cast<double>(y)));
  return x;
}

// A row of n values as q8 keeps it: multiples of a 127th of the largest.
inline void keep_in_bytes(float* row, std::size_t n) {
  double most = 0.0;
  for (std::size_t d = 0; d < n; ++d) most = std::max(most, std::abs(static_cast<double>(row[d])));
  const double step = most / 127.0;
  for (std::size_t d = 0; d < n && step > 0.0; ++d)
    row[d] = static_cast<float>(std::nearbyint(static_cast<double>(row[d]) / step) * step);
}

template <class T>
std::vector<T> stored(const std::vector<float>& x) {
  std::vector<T> y(x.size());
  std::transform(x.begin(), x.end(), y.begin(), [](float v) { return from_f32<T>(v); });
  return y;
}

}  // namespace zeromerge::test
