// gate=1: merged entries only in heads where they bring the output nearer to that of everything.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "support/held.hpp"
#include "support/sequence.hpp"

namespace zeromerge {
namespace {

using test::HeldHead;
using test::Tokens;

constexpr std::size_t kDim = 16, kPrompt = 160, kBudget = 40;
const Geometry kGeometry{.query_heads = 6, .kv_heads = 2, .head_dim = kDim};

CacheOptions with_rope() {
  CacheOptions options;
  options.rope = std::make_shared<Rope>(RopeParams{.dims = kDim, .base = 1e6}, kDim);
  return options;
}

// Head 0: all old tokens have one key and one value, so that one merged entry with the whole logarithm of its
// mass (alpha = 1) stands for them exactly, and dropping them leaves the newest too much.
// Head 1: every other old token is not looked at, and its value is far from what all others have: dropping
// changes nothing, and the mean of values is wrong. Queries have it in a channel that RoPE hardly turns.
Tokens one_head_each_way(std::uint64_t seed) {
  Tokens t(kGeometry, kPrompt + 120, seed);
  const std::size_t slow = kDim / 2 - 1;
  for (std::size_t i = 0; i < t.count; ++i) {
    const bool old = i < kPrompt - 16;
    for (std::size_t d = 0; d < kDim; ++d) {
      const std::size_t first = 2 * i * kDim + d;
      t.k[first] = d % 2 == 0 ? 0.3f : -0.2f;
      if (old) t.v[first] = d < 8 ? 1.0f : -0.5f;
      const std::size_t second = first + kDim;
      const bool alien = old && i >= 4 && i % 2 == 0;
      t.k[second] = d == slow ? (alien ? -9.0f : 3.0f) : 0.1f * t.k[second];
      t.v[second] = alien ? -9.0f : 1.0f;
    }
    for (std::size_t g = 3; g < 6; ++g) t.q[(i * 6 + g) * kDim + slow] = 4.0f;
  }
  return t;
}

test::Cache<> made(const std::string& more) {
  return test::make("budget=40,sinks=4,tail=16,alpha=1,score=exact" + more, kGeometry, with_rope());
}

template <class Cache>
void take_prompt(Cache& cache, const Tokens& t) {
  (void)test::prefill(cache.layer(0), t, 0, kPrompt);
  cache.finish_prompt();
}

double mass_of(const HeldHead& head) {
  double mass = 0.0;
  for (const float m : head.mass) mass += static_cast<double>(m);
  return mass;
}

TEST(Gate, KeepsWhatHelpsAndDropsWhatHurts) {
  const Tokens t = one_head_each_way(1);
  auto gated = made(",gate=1");
  auto merged = made("");
  auto dropped = made(",merge=drop");
  for (auto* cache : {&gated, &merged, &dropped}) take_prompt(*cache, t);
  const HeldHead helps = test::held(gated.layer(0).head(0));
  EXPECT_EQ(mass_of(helps), static_cast<double>(kPrompt));
  EXPECT_EQ(test::difference({0, false, {helps}}, {0, false, {test::held(merged.layer(0).head(0))}}), "");
  const HeldHead hurts = test::held(gated.layer(0).head(1));
  EXPECT_EQ(hurts.size, kBudget);
  EXPECT_EQ(mass_of(hurts), static_cast<double>(kBudget)) << "nothing is merged";
  EXPECT_EQ(hurts.position, test::held(dropped.layer(0).head(1)).position)
      << "the place of the merged entry goes to one more token";
  EXPECT_EQ(gated.layer(0).state(1).division.residual, 0u);
}

TEST(Gate, PlacesOfMergedEntriesGoByTheScoreOfWholePromptsToo) {
  const Tokens t = one_head_each_way(4);
  auto gated = made(",residual=6,gate=1,keydiff=100%");
  auto dropped = made(",merge=drop,keydiff=100%");
  for (auto* cache : {&gated, &dropped}) take_prompt(*cache, t);
  ASSERT_EQ(gated.layer(0).state(1).division.residual, 0u) << "merging hurts";
  EXPECT_EQ(test::held(gated.layer(0).head(1)).position, test::held(dropped.layer(0).head(1)).position);
}

TEST(Gate, AHeadGoesOnDecodingAfterEitherChoice) {
  const Tokens t = one_head_each_way(2);
  auto cache = made(",gate=1");
  auto& layer = cache.layer(0);
  take_prompt(cache, t);
  for (std::size_t token = kPrompt; token < t.count; ++token) {
    std::vector<HeldHead> before;
    for (std::size_t h = 0; h < 2; ++h)
      before.push_back(test::with_token(test::held(layer.head(h)), t, token, h));
    const auto out = test::decode(layer, t, token);
    for (std::size_t h = 0; h < 2; ++h) {
      for (std::size_t g = 0; g < 3; ++g)
        ASSERT_LE(test::row_error(out.data() + (h * 3 + g) * kDim,
                                  test::attention_over(before[h], t, token, h * 3 + g)),
                  1e-4);
      const HeldHead head = test::held(layer.head(h));
      ASSERT_EQ(head.size, kBudget);
      ASSERT_EQ(mass_of(head), static_cast<double>(h == 0 ? token + 1 : kBudget)) << "token " << token;
      for (std::size_t i = 0; i < 16; ++i)
        ASSERT_NE(std::find(head.position.begin(), head.position.end(), token - i), head.position.end());
    }
  }
}

// Merged entries that a head has already compete for its places when the gate decides for dropping.
TEST(Gate, ASecondPromptKeepsToTheBudget) {
  for (const char* residual : {",residual=1", ",residual=6"})
    for (const std::size_t more : {1u, 10u, 60u}) {
      const Tokens t(kGeometry, kPrompt + 120, 3 + more);
      auto cache = made(std::string(",gate=1") + residual);
      auto& layer = cache.layer(0);
      take_prompt(cache, t);
      std::size_t token = kPrompt;
      for (std::size_t i = 0; i < 20; ++i) (void)test::decode(layer, t, token++);
      (void)test::prefill(layer, t, token, more);
      token += more;
      for (std::size_t i = 0; i < 30; ++i) {
        (void)test::decode(layer, t, token++);
        for (std::size_t h = 0; h < 2; ++h) {
          const HeldHead head = test::held(layer.head(h));
          ASSERT_EQ(head.size, kBudget) << residual << " second prompt " << more;
          ASSERT_LE(mass_of(head), static_cast<double>(token));
          std::vector<std::uint32_t> p = head.position;
          std::sort(p.begin(), p.end());
          ASSERT_TRUE(std::adjacent_find(p.begin(), p.end()) == p.end()) << "an entry is there twice";
        }
      }
    }
}

TEST(Gate, NeedsTheModelsRope) { EXPECT_THROW((void)test::make("budget=40,gate=1", kGeometry), Error); }

}  // namespace
}  // namespace zeromerge
