#include "zeromerge/cache/check.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "support/refusal.hpp"
#include "support/rounding.hpp"

namespace zeromerge {
namespace {

template <class T>
std::string refusal(const std::vector<T>& x, float limit) {
  try {
    detail::check_values("v", rows(x.data(), 2, 2, x.size() / 4), limit, "do something");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

template <class T>
class Check : public testing::Test {};
using Types = testing::Types<float, f16, bf16>;
TYPED_TEST_SUITE(Check, Types);

TYPED_TEST(Check, FiniteValuesUpToTheLimitPassAndLargerOnesAreNamed) {
  for (std::size_t at = 0; at < 20; ++at) {
    std::vector<float> x(20, -0.5f);
    x[at] = -96.0f;
    EXPECT_EQ(refusal(test::stored<TypeParam>(x), 96.0f), "");
    EXPECT_EQ(refusal(test::stored<TypeParam>(x), 95.0f),
              "v: a value of magnitude 96 exceeds 95; do something");
  }
}

TYPED_TEST(Check, NanAndInfinityAreRefusedWhereverTheyStand) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const float bad : {std::nanf(""), -std::nanf(""), kInfinity, -kInfinity})
    for (std::size_t at = 0; at < 20; ++at) {
      std::vector<float> x(20, 1.0f);
      x[at] = bad;
      EXPECT_NE(refusal(test::stored<TypeParam>(x), 1e30f).find("not finite"), std::string::npos) << bad;
    }
}

TEST(Check, OnlyTheRowsOfTheViewAreRead) {
  std::vector<float> x(4 * 10, std::nanf(""));
  for (std::size_t t = 0; t < 4; ++t)
    for (std::size_t d = 0; d < 3; ++d) x[t * 10 + 5 + d] = static_cast<float>(t);
  const RowView view{x.data() + 5, Element::f32, 4, 1, 3, 10 * sizeof(float), 0};
  EXPECT_EQ(detail::largest_bits(view), std::bit_cast<std::uint32_t>(3.0f));
}

TEST(Check, SinkLogitsAreFiniteAndOneForEachQueryHead) {
  const Geometry geometry{.layers = 1, .query_heads = 4, .kv_heads = 2, .head_dim = 8};
  const auto refused = [&](const std::vector<float>& sinks) {
    return test::refusal([&] { detail::check_sinks(geometry.shape(0), sinks); });
  };
  EXPECT_EQ(refused({}), "");
  EXPECT_EQ(refused({0.0f, -3.0f, 100.0f, -1e29f}), "");
  EXPECT_EQ(refused({1.0f, 2.0f}), "sinks: expected 4 logits, one per query head, got 2");
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const float bad : {std::nanf(""), -std::nanf(""), kInfinity, -kInfinity})
    EXPECT_TRUE(test::contains(refused({0.0f, 0.0f, bad, 0.0f}), "is not finite")) << bad;
}

}  // namespace
}  // namespace zeromerge
