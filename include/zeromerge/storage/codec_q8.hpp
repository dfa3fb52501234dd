// Rows of 8 bits with one scale: x ~ scale * q, q in [-127, 127], stored as q + 128.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace zeromerge::detail {

inline constexpr std::uint8_t kZeroQ8 = 128;

// The nearest whole number, halves to even, of |x| below 2^22: adding 1.5 * 2^23 leaves no room for a
// fraction.
inline int nearest(float x) noexcept {
  return static_cast<int>(std::bit_cast<std::int32_t>(x + 12582912.0f) - 0x4b400000);
}

// Returns the scale; 0 for a row of zeros.
inline float encode_q8(const float* x, std::size_t n, std::uint8_t* q) noexcept {
  float largest = 0.0f;
  for (std::size_t d = 0; d < n; ++d) largest = std::max(largest, std::abs(x[d]));
  const float scale = largest / 127.0f;
  // A scale so small that it is not a normal number cannot be divided by.
  const float inverse = scale >= 1.2e-38f ? 1.0f / scale : 0.0f;
  for (std::size_t d = 0; d < n; ++d)
    q[d] = static_cast<std::uint8_t>(std::clamp(nearest(x[d] * inverse), -127, 127) + kZeroQ8);
  return inverse > 0.0f ? scale : 0.0f;
}

inline void decode_q8(const std::uint8_t* q, std::size_t n, float scale, float* x) noexcept {
  for (std::size_t d = 0; d < n; ++d) x[d] = scale * static_cast<float>(static_cast<int>(q[d]) - kZeroQ8);
}

}  // namespace zeromerge::detail
