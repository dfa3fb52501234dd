// merge=nearest in a cache: the values of a prompt's leavers go to the nearest keys, once; decoded tokens
// that leave are dropped.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "support/held.hpp"
#include "support/sequence.hpp"

namespace zeromerge {
namespace {

using test::HeldHead;
using test::Tokens;

constexpr std::size_t kPrompt = 140, kDim = 12;
const Geometry kGeometry{.query_heads = 4, .kv_heads = 2, .head_dim = kDim};

test::Cache<> after_prompt(const std::string& merge, const Tokens& t) {
  auto cache = test::make("budget=40,sinks=4,tail=10,merge=" + merge, kGeometry);
  (void)test::prefill(cache.layer(0), t, 0, kPrompt);
  cache.finish_prompt();
  return cache;
}

double dot(const float* a, const float* b) {
  double sum = 0.0;
  for (std::size_t d = 0; d < kDim; ++d) sum += static_cast<double>(a[d]) * static_cast<double>(b[d]);
  return sum;
}

// The values of those who stay, [entries][head_dim], when all others have given theirs.
std::vector<double> given(const Tokens& t, std::size_t h, const std::vector<std::uint32_t>& stay) {
  std::vector<double> weight(stay.size(), 1.0), value(stay.size() * kDim);
  for (std::size_t s = 0; s < stay.size(); ++s)
    for (std::size_t d = 0; d < kDim; ++d) value[s * kDim + d] = static_cast<double>(t.value(stay[s], h)[d]);
  for (std::size_t e = 0; e < kPrompt; ++e) {
    if (std::find(stay.begin(), stay.end(), e) != stay.end()) continue;
    std::size_t nearest = 0;
    double best = -2.0;
    for (std::size_t s = 0; s < stay.size(); ++s) {
      const float* a = t.key(e, h);
      const float* b = t.key(stay[s], h);
      const double cosine = dot(a, b) / std::sqrt(dot(a, a) * dot(b, b));
      if (!(cosine > best)) continue;
      best = cosine;
      nearest = s;
    }
    const float* own = t.value(e, h);
    const float* its = t.value(stay[nearest], h);
    const double w = std::max(0.0, best) * std::sqrt(dot(own, own)) /
                     (std::sqrt(dot(own, own)) + std::sqrt(dot(its, its)));
    weight[nearest] += w;
    for (std::size_t d = 0; d < kDim; ++d) value[nearest * kDim + d] += w * static_cast<double>(own[d]);
  }
  for (std::size_t i = 0; i < value.size(); ++i) value[i] /= weight[i / kDim];
  return value;
}

TEST(NearestMerge, ValuesOfLeaversGoToTheNearestKeys) {
  const Tokens t(kGeometry, kPrompt, 1);
  auto merged = after_prompt("nearest", t), dropped = after_prompt("drop", t);
  for (std::size_t h = 0; h < 2; ++h) {
    const HeldHead a = test::held(merged.layer(0).head(h)), b = test::held(dropped.layer(0).head(h));
    EXPECT_EQ(a.position, b.position) << "who stays does not depend on the merge";
    EXPECT_TRUE(test::same_bits(a.key, b.key)) << "keys stay as they are";
    EXPECT_TRUE(a.mass.empty());
    const auto expected = given(t, h, a.position);
    for (std::size_t i = 0; i < expected.size(); ++i)
      ASSERT_NEAR(a.value[i], expected[i], 1e-5) << "element " << i;
    EXPECT_FALSE(test::same_bits(a.value, b.value));
  }
}

TEST(NearestMerge, DecodedTokensAreDroppedAsWithoutAMerge) {
  const Tokens t(kGeometry, kPrompt + 100, 2);
  auto merged = after_prompt("nearest", t), dropped = after_prompt("drop", t);
  for (std::size_t token = kPrompt; token < t.count; ++token) {
    std::vector<HeldHead> before;
    for (std::size_t h = 0; h < 2; ++h)
      before.push_back(test::with_token(test::held(merged.layer(0).head(h)), t, token, h));
    const auto out = test::decode(merged.layer(0), t, token);
    (void)test::decode(dropped.layer(0), t, token);
    for (std::size_t h = 0; h < 2; ++h) {
      for (std::size_t g = 0; g < 2; ++g)
        ASSERT_LE(test::row_error(out.data() + (h * 2 + g) * kDim,
                                  test::attention_over(before[h], t, token, h * 2 + g)),
                  1e-5);
      ASSERT_EQ(test::held(merged.layer(0).head(h)).position, test::held(dropped.layer(0).head(h)).position);
    }
  }
}

TEST(NearestMerge, APromptThatFitsIsLeftAlone) {
  const Tokens t(kGeometry, kPrompt, 3);
  auto cache = test::make("budget=140,merge=nearest", kGeometry);
  (void)test::prefill(cache.layer(0), t, 0, kPrompt);
  cache.finish_prompt();
  for (std::size_t h = 0; h < 2; ++h) {
    const HeldHead head = test::held(cache.layer(0).head(h));
    for (std::size_t j = 0; j < kPrompt; ++j)
      for (std::size_t d = 0; d < kDim; ++d) ASSERT_EQ(head.value[j * kDim + d], t.value(j, h)[d]);
  }
}

}  // namespace
}  // namespace zeromerge
