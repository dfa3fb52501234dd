// Several tokens in one decode call: outputs and state are those of one call for each, bit for bit.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "support/any_layer.hpp"
#include "support/held.hpp"
#include "support/sequence.hpp"

namespace zeromerge {
namespace {

using test::Random;
using test::Tokens;

const Geometry kGeometry{.layers = 2, .query_heads = 6, .kv_heads = 2, .head_dim = 32};

class DecodeRows : public testing::TestWithParam<std::string> {};

INSTANTIATE_TEST_SUITE_P(
    Policies, DecodeRows,
    testing::Values("full:storage=f16", "full:storage=q4", "full:keys=q8,values=q4", "streaming:budget=40",
                    "streaming:budget=40,storage=q4", "zeromerge:budget=40,residual=3,storage=f32",
                    "zeromerge:budget=40,residual=3,storage=bf16",
                    "zeromerge:budget=40,residual=3,storage=q8", "zeromerge:budget=40,residual=3,storage=q4",
                    "zeromerge:budget=200,storage=q4", "zeromerge:budget=150,evict=16,storage=q4",
                    "zeromerge:budget=40,storage=f32,reference=1", "zeromerge:budget=50,merge=nearest",
                    "zeromerge:budget=90,replay=50%,hold=30", "h2o:budget=40,storage=q8", "best:budget=40",
                    "best:budget=60,storage=f16,hold=8", "keydiff:budget=60", "keydiff:budget=60,storage=q4",
                    "adakv:budget=80,evict=4", "best:budget=60,precise=1%",
                    "zeromerge:budget=25%,least=12,storage=q4", "zeromerge:budget=25%,least=24,evict=5",
                    "best:budget=30%,least=30"),
    [](const auto& test) { return "spec" + std::to_string(test.index); });

// Feeds tokens [first, last) in calls of random length.
std::vector<float> in_calls(AnyLayer& layer, const Tokens& t, std::size_t first, std::size_t last,
                            std::size_t longest, Random& random) {
  std::vector<float> all;
  while (first < last) {
    const std::size_t n = std::min(last - first, random.between(1, longest));
    const auto out = test::decode_rows(layer, t, first, n);
    all.insert(all.end(), out.begin(), out.end());
    first += n;
  }
  return all;
}

TEST_P(DecodeRows, AreThoseOfOneCallForEach) {
  const Tokens t(kGeometry, 320, 3);
  for (const std::size_t prompt : {7u, 45u, 150u})
    for (const std::size_t count : {1u, 3u}) {
      SCOPED_TRACE(GetParam() + ", prompt of " + std::to_string(prompt));
      auto one = make_cache(GetParam(), kGeometry, test::with_rope(kGeometry));
      auto many = make_cache(GetParam(), kGeometry, test::with_rope(kGeometry, threads(count)));
      Random random(prompt + count);
      for (std::size_t l = 0; l < kGeometry.layers; ++l) {
        (void)test::prefill(one->layer(l), t, 0, prompt);
        (void)test::prefill(many->layer(l), t, 0, prompt);
      }
      one->finish_prompt();
      many->finish_prompt();
      AnyLayer &a = one->layer(0), &b = many->layer(0);
      for (std::size_t token = prompt; token < t.count; token += 40) {
        const std::size_t last = std::min(t.count, token + 40);
        const auto expected = in_calls(a, t, token, last, 1, random);
        const auto got = in_calls(b, t, token, last, 12, random);
        ASSERT_TRUE(test::same_bits(expected, got)) << "to token " << last;
        ASSERT_EQ(test::difference(test::layer_bits(a, kGeometry), test::layer_bits(b, kGeometry)), "");
        ASSERT_EQ(a.tokens(), b.tokens());
      }
    }
}

TEST(DecodeRows, OfHeadsWithSeveralSegmentsAreThoseOfOneCallForEach) {
  const Geometry g{.layers = 1, .query_heads = 8, .kv_heads = 2, .head_dim = 64};
  const Tokens t(g, 1400, 5);
  for (const char* spec : {"full:storage=f16", "zeromerge:budget=1000,storage=q8", "best:budget=900"}) {
    SCOPED_TRACE(spec);
    auto one = make_cache(spec, g, test::with_rope(g));
    auto many = make_cache(spec, g, test::with_rope(g, threads(2)));
    (void)test::prefill(one->layer(0), t, 0, 1020);
    (void)test::prefill(many->layer(0), t, 0, 1020);
    Random random(1);
    const auto expected = in_calls(one->layer(0), t, 1020, 1100, 1, random);
    const auto got = in_calls(many->layer(0), t, 1020, 1100, 16, random);
    EXPECT_TRUE(test::same_bits(expected, got));
    EXPECT_EQ(test::difference(test::layer_bits(one->layer(0), g), test::layer_bits(many->layer(0), g)), "");
  }
}

TEST(DecodeRows, EndThePromptOnceAndForAll) {
  const Tokens t(kGeometry, 60, 7);
  auto cache = make_cache("zeromerge:budget=40", kGeometry);
  (void)test::prefill(cache->layer(0), t, 0, 50);
  (void)test::decode_rows(cache->layer(0), t, 50, 5);
  EXPECT_FALSE(cache->layer(0).in_prompt());
  EXPECT_EQ(cache->layer(0).entries(0), 40u);
}

TEST(DecodeRows, ARowThatIsNotFiniteIsRefusedWithNothingChanged) {
  for (const std::size_t bad : {0u, 2u, 4u}) {
    Tokens t(kGeometry, 60, 8);
    t.k[((50 + bad) * kGeometry.kv_heads + 1) * kGeometry.head_dim + 3] =
        std::numeric_limits<float>::infinity();
    auto cache = make_cache("zeromerge:budget=40", kGeometry);
    (void)test::prefill(cache->layer(0), t, 0, 45);
    (void)test::decode_rows(cache->layer(0), t, 45, 5);
    const auto before = test::layer_bits(cache->layer(0), kGeometry);
    EXPECT_THROW((void)test::decode_rows(cache->layer(0), t, 50, 5), Error);
    EXPECT_EQ(cache->layer(0).tokens(), 50u);
    EXPECT_EQ(test::difference(before, test::layer_bits(cache->layer(0), kGeometry)), "");
  }
}

}  // namespace
}  // namespace zeromerge
