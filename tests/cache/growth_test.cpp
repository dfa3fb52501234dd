// Capacities that follow the tokens seen while they are decoded.
#include "zeromerge/cache/growth.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

#include "support/held.hpp"
#include "support/sequence.hpp"

namespace zeromerge {
namespace {

using test::Tokens;

const Geometry kGeometry{.query_heads = 6, .kv_heads = 3, .head_dim = 8};

double mean_entries(const auto& layer) {
  double all = 0.0;
  for (std::size_t h = 0; h < kGeometry.kv_heads; ++h) all += static_cast<double>(layer.head(h).size());
  return all / static_cast<double>(kGeometry.kv_heads);
}

TEST(Growth, AShareIsOneOfTheTokensSeen) {
  const Tokens t(kGeometry, 2020, 1);
  for (const char* settings : {"budget=5%", "budget=5%,heads=adaptive", "budget=5%,evict=4,merge=drop",
                               "budget=5%,tail=80%,residual=10%", "budget=5%,least=100,tail=15"}) {
    SCOPED_TRACE(settings);
    auto cache = test::make(settings, kGeometry);
    auto& layer = cache.layer(0);
    (void)test::prefill(layer, t, 0, 20);
    for (std::size_t token = 20; token < t.count; ++token) {
      (void)test::decode(layer, t, token);
      const double share = 0.05 * static_cast<double>(token + 1);
      const std::size_t least = layer.state(0).division.mean;
      if (token + 1 >= 1000 && static_cast<double>(least) <= share + 1.0) {
        // A block of decoded tokens leaves at once, so that up to all but one of its places are free.
        ASSERT_LE(mean_entries(layer), share + 1.0) << token;
        ASSERT_GE(mean_entries(layer), share - 1.0 - static_cast<double>(layer.state(0).division.slack))
            << token;
      }
    }
    EXPECT_NEAR(mean_entries(layer), 101.0, 1.0 + static_cast<double>(layer.state(0).division.slack));
  }
}

TEST(Growth, NothingIsDroppedBelowTheLeast) {
  const Tokens t(kGeometry, 140, 2);
  auto cache = test::make("budget=5%,least=100", kGeometry);
  auto& layer = cache.layer(0);
  (void)test::prefill(layer, t, 0, 7);
  for (std::size_t token = 7; token < t.count; ++token) {
    (void)test::decode(layer, t, token);
    for (std::size_t h = 0; h < kGeometry.kv_heads; ++h)
      ASSERT_EQ(layer.head(h).size(), std::min<std::size_t>(token + 1, 100));
  }
}

TEST(Growth, HeadsThatDifferKeepTheirProportions) {
  const Tokens t(kGeometry, 1200, 3);
  auto cache = test::make("budget=10%,heads=adaptive,floor=10%,least=8", kGeometry);
  auto& layer = cache.layer(0);
  (void)test::prefill(layer, t, 0, 400);
  cache.finish_prompt();
  std::vector<std::size_t> before;
  for (std::size_t h = 0; h < kGeometry.kv_heads; ++h) before.push_back(layer.head(h).size());
  for (std::size_t token = 400; token < t.count; ++token) (void)test::decode(layer, t, token);
  std::size_t all = 0;
  for (std::size_t h = 0; h < kGeometry.kv_heads; ++h) {
    EXPECT_NEAR(static_cast<double>(layer.head(h).size()), 3.0 * static_cast<double>(before[h]),
                1.0 + static_cast<double>(before[h]) * 3.0 / 64.0);
    all += layer.head(h).size();
  }
  EXPECT_LE(all, 3u * 120u);
}

TEST(Growth, CountsBytesAndTheReferenceStay) {
  const Tokens t(kGeometry, 900, 4);
  for (const char* settings : {"budget=40", "budget=6KiB", "budget=10%,reference=1"}) {
    SCOPED_TRACE(settings);
    auto cache = test::make(settings, kGeometry);
    auto& layer = cache.layer(0);
    (void)test::prefill(layer, t, 0, 400);
    (void)test::decode(layer, t, 400);
    const std::size_t entries = layer.head(0).size();
    for (std::size_t token = 401; token < t.count; ++token) (void)test::decode(layer, t, token);
    EXPECT_EQ(layer.head(0).size(), entries);
  }
}

// However long the prompt was.
TEST(Growth, OfEverythingNothingLeaves) {
  const Tokens t(kGeometry, 480, 8);
  for (const char* settings : {"budget=100%", "budget=100%,heads=adaptive", "budget=100%,merge=drop"}) {
    auto cache = test::make(settings, kGeometry);
    auto& layer = cache.layer(0);
    (void)test::prefill(layer, t, 0, 400);
    for (std::size_t token = 400; token < t.count; ++token) {
      (void)test::decode(layer, t, token);
      for (std::size_t h = 0; h < kGeometry.kv_heads; ++h)
        ASSERT_EQ(layer.head(h).size(), token + 1) << settings;
    }
  }
}

// A share is lifted to least= on average; a head that needs less than that has less.
TEST(Growth, TheLeastIsAnAverageWhereHeadsDiffer) {
  const Tokens t(kGeometry, 400, 7);
  const auto smallest = [&](const std::string& settings) {
    auto cache = test::make("budget=20%,heads=adaptive,floor=0%," + settings, kGeometry);
    (void)test::prefill(cache.layer(0), t, 0, 400);
    cache.finish_prompt();
    std::size_t least = 400, all = 0;
    for (std::size_t h = 0; h < kGeometry.kv_heads; ++h) {
      least = std::min(least, cache.layer(0).head(h).size());
      all += cache.layer(0).head(h).size();
    }
    EXPECT_EQ(all, kGeometry.kv_heads * 100) << settings;
    return least;
  };
  EXPECT_EQ(smallest("least=100"), 100u);
  EXPECT_LT(smallest("least=100,lowest=12,tail=4"), 100u);
  EXPECT_GE(smallest("least=100,lowest=12,tail=4"), 12u);
}

// A head is given room a tile at a time, so most of its growth takes no memory.
TEST(Growth, MostStepsTakeNoMemory) {
  const Tokens t(kGeometry, 2000, 5);
  auto cache = test::make("budget=10%", kGeometry);
  auto& layer = cache.layer(0);
  (void)test::prefill(layer, t, 0, 400);
  (void)test::decode(layer, t, 400);
  std::size_t changes = 0;
  std::size_t bytes = cache.bytes().held;
  for (std::size_t token = 401; token < t.count; ++token) {
    (void)test::decode(layer, t, token);
    changes += cache.bytes().held != bytes ? 1 : 0;
    bytes = cache.bytes().held;
  }
  EXPECT_NEAR(static_cast<double>(layer.head(0).size()), 200.0, 3.0);
  EXPECT_LE(changes, 20u);
  EXPECT_GE(changes, 5u);
}

// Entries in groups do not change places bit for bit, so such a ring waits until it has turned full circle.
TEST(Growth, EveryStorageFollows) {
  const Geometry g{.query_heads = 2, .kv_heads = 2, .head_dim = 32};
  const Tokens t(g, 2600, 6);
  for (const char* storage : {"f32", "f16", "bf16", "q8", "q4"})
    for (const char* tail : {"15", "40%"}) {
      SCOPED_TRACE(std::string(storage) + " " + tail);
      auto cache = make_cache("zeromerge:budget=10%,storage=" + std::string(storage) + ",tail=" + tail, g);
      AnyLayer& layer = cache->layer(0);
      (void)test::prefill(layer, t, 0, 600);
      for (std::size_t token = 600; token < t.count; ++token) {
        (void)test::decode(layer, t, token);
        // The last tokens are all there, whatever places they have.
        if (token % 97 != 0) continue;
        std::vector<std::size_t> there;
        for (std::size_t j = 0; j < layer.entries(0); ++j) there.push_back(layer.position(0, j));
        std::sort(there.begin(), there.end());
        ASSERT_EQ(std::unique(there.begin(), there.end()), there.end());
        for (std::size_t i = 0; i < 15; ++i) ASSERT_EQ(there[there.size() - 1 - i], token - i);
      }
      EXPECT_LE(layer.entries(0), 260u);
      EXPECT_GE(layer.entries(0), 260u - 12u);
    }
}

}  // namespace
}  // namespace zeromerge
