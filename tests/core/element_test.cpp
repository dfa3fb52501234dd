#include "zeromerge/core/element.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>

#include "support/random.hpp"
#include "support/rounding.hpp"

namespace zeromerge {
namespace {

// What a bit pattern of `fraction` fraction bits and `bias` means.
double value_of(std::uint16_t bits, int fraction, int bias) {
  const int exponent_bits = 15 - fraction;
  const int exponent = (bits & 0x7fff) >> fraction;
  const int mantissa = bits & ((1 << fraction) - 1);
  const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
  if (exponent == (1 << exponent_bits) - 1) return mantissa != 0 ? std::nan("") : sign * HUGE_VAL;
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - fraction);
  return sign * std::ldexp(mantissa + (1 << fraction), exponent - bias - fraction);
}
double value_of(f16 x) { return value_of(x.bits, 10, 15); }
double value_of(bf16 x) { return value_of(x.bits, 7, 127); }

template <class T>
class Element16 : public testing::Test {};
using Types = testing::Types<f16, bf16>;
TYPED_TEST_SUITE(Element16, Types);

TYPED_TEST(Element16, EveryBitPatternHasItsValueAndComesBack) {
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    const TypeParam x{static_cast<std::uint16_t>(bits)};
    const double expected = value_of(x);
    const float wide = to_f32(x);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(wide)) << bits;
      ASSERT_TRUE(std::isnan(to_f32(from_f32<TypeParam>(wide)))) << bits;
      continue;
    }
    ASSERT_EQ(static_cast<double>(wide), expected) << bits;
    ASSERT_EQ(std::signbit(wide), std::signbit(expected)) << bits;
    ASSERT_EQ(from_f32<TypeParam>(wide).bits, bits);
  }
}

TYPED_TEST(Element16, RoundsToNearestAndTiesToEven) {
  const auto check = [](float x) {
    const float got = to_f32(from_f32<TypeParam>(x));
    ASSERT_EQ(static_cast<double>(got), test::round_to<TypeParam>(static_cast<double>(x))) << x;
    ASSERT_EQ(std::signbit(got), std::signbit(x)) << x;
  };
  // Around the middle between every two neighbours, of both signs.
  for (unsigned bits = 0; bits < 0x7fff; ++bits) {
    const double low = value_of(TypeParam{static_cast<std::uint16_t>(bits)});
    const double high = value_of(TypeParam{static_cast<std::uint16_t>(bits + 1)});
    if (!std::isfinite(low) || !std::isfinite(high)) continue;
    const auto middle = static_cast<float>(0.5 * (low + high));
    for (const float x : {middle, std::nextafter(middle, 0.0f), std::nextafter(middle, HUGE_VALF)}) {
      check(x);
      check(-x);
    }
  }
  test::Random random(1);
  for (int i = 0; i < 100'000; ++i) {
    const auto bits = static_cast<std::uint32_t>(random.next());
    if ((bits & 0x7f800000u) != 0x7f800000u) check(std::bit_cast<float>(bits));
  }
}

TYPED_TEST(Element16, TheLargestStorableValueRoundsToAFiniteOneAndTwiceItDoesNot) {
  const float most = largest_storable(storage_of<TypeParam>);
  EXPECT_EQ(static_cast<double>(to_f32(from_f32<TypeParam>(most))), test::format_of<TypeParam>().largest);
  EXPECT_FALSE(std::isfinite(to_f32(from_f32<TypeParam>(most * 1.001f))));
  EXPECT_FALSE(std::isfinite(to_f32(from_f32<TypeParam>(HUGE_VALF))));
}

TEST(Element, SizesAndNamesFollowTheType) {
  EXPECT_EQ(element_size(Element::f32), sizeof(f32));
  EXPECT_EQ(element_size(Element::f16), sizeof(f16));
  EXPECT_EQ(element_size(Element::bf16), sizeof(bf16));
  EXPECT_STREQ(element_name(element_of<float>), "f32");
  EXPECT_STREQ(element_name(element_of<f16>), "f16");
  EXPECT_STREQ(element_name(element_of<bf16>), "bf16");
}

}  // namespace
}  // namespace zeromerge
