// Element types of given rows: f32, f16 (IEEE binary16), bf16; and the types in which a cache stores entries:
// these three, q8 and q4. Arithmetic is always in f32; these only convert, rounding to nearest even. The
// conversions here are the portable ones; kernels use the CPU's own where it has them.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

namespace zeromerge {

enum class Element : std::uint8_t { f32, f16, bf16 };
enum class StorageType : std::uint8_t { f32, f16, bf16, q8, q4 };

struct f16 {
  std::uint16_t bits;
};
struct bf16 {
  std::uint16_t bits;
};
using f32 = float;

constexpr std::size_t element_size(Element e) noexcept { return e == Element::f32 ? 4 : 2; }
constexpr const char* element_name(Element e) noexcept {
  return e == Element::f32 ? "f32" : e == Element::f16 ? "f16" : "bf16";
}

template <class T>
inline constexpr Element element_of = Element::f32;
template <>
inline constexpr Element element_of<f16> = Element::f16;
template <>
inline constexpr Element element_of<bf16> = Element::bf16;

// Quantised storage.
struct q8 {};  // 8 bits, symmetric: x ~ scale * q with q in [-127, 127], one f32 scale per row
struct q4 {};  // 4 bits, asymmetric: x ~ minimum + scale * q with q in [0, 15], both f16, shared by 32
               // values: keys by channel over 32 entries, values by entry over 32 channels. Entries that do
               // not fill a group of 32 yet are f16.

constexpr const char* storage_name(StorageType s) noexcept {
  constexpr const char* names[] = {"f32", "f16", "bf16", "q8", "q4"};
  return names[static_cast<std::size_t>(s)];
}

template <class T>
inline constexpr StorageType storage_of = StorageType::f32;
template <>
inline constexpr StorageType storage_of<f16> = StorageType::f16;
template <>
inline constexpr StorageType storage_of<bf16> = StorageType::bf16;
template <>
inline constexpr StorageType storage_of<q8> = StorageType::q8;
template <>
inline constexpr StorageType storage_of<q4> = StorageType::q4;

// The largest magnitude that is finite once stored.
constexpr float largest_storable(StorageType s) noexcept {
  switch (s) {
    case StorageType::f16:
    case StorageType::q4:
      return 65519.0f;
    case StorageType::bf16:
      return 3.3961e38f;
    default:
      return 3.40282347e38f;
  }
}

inline float to_f32(float x) noexcept { return x; }

// The exponent is rebased by one multiplication, which also normalises subnormals.
inline float to_f32(f16 x) noexcept {
  const std::uint32_t sign = static_cast<std::uint32_t>(x.bits & 0x8000u) << 16;
  const std::uint32_t magnitude = static_cast<std::uint32_t>(x.bits & 0x7fffu) << 13;
  if ((x.bits & 0x7c00u) == 0x7c00u) return std::bit_cast<float>(sign | magnitude | 0x7f800000u);
  const float value = std::bit_cast<float>(magnitude) * std::bit_cast<float>(0x77800000u);  // 2^112
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) | sign);
}

inline float to_f32(bf16 x) noexcept {
  return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16);
}

template <class T>
T from_f32(float x) noexcept;

template <>
inline float from_f32<float>(float x) noexcept {
  return x;
}

template <>
inline f16 from_f32<f16>(float x) noexcept {
  const std::uint32_t u = std::bit_cast<std::uint32_t>(x);
  const auto sign = static_cast<std::uint16_t>((u >> 16) & 0x8000u);
  const std::uint32_t a = u & 0x7fffffffu;
  if (a >= 0x47800000u) {  // at least 2^16, infinity or NaN
    const bool nan = a > 0x7f800000u;
    return {static_cast<std::uint16_t>(sign | 0x7c00u | (nan ? 0x0200u : 0u))};
  }
  if (a < 0x38800000u) {  // subnormal or zero: adding 0.5 leaves the rounded integer in the low bits
    const float shifted = std::bit_cast<float>(a) + 0.5f;
    return {static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3f000000u))};
  }
  const std::uint32_t rounded = a + 0xfffu + ((a >> 13) & 1u) - 0x38000000u;
  return {static_cast<std::uint16_t>(sign | (rounded >> 13))};
}

template <>
inline bf16 from_f32<bf16>(float x) noexcept {
  const std::uint32_t u = std::bit_cast<std::uint32_t>(x);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {static_cast<std::uint16_t>((u >> 16) | 0x40u)};
  return {static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}

}  // namespace zeromerge
