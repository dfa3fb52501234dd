// What replay chose competes again little by little, the least rated first.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "support/plain_scores.hpp"
#include "support/sequence.hpp"
#include "zeromerge/cache/presets.hpp"

namespace zeromerge {
namespace {

constexpr Geometry kGeometry{.layers = 1, .query_heads = 4, .kv_heads = 2, .head_dim = 32};
constexpr std::size_t kPrompt = 300;

std::unique_ptr<AnyCache> made(const std::string& settings) {
  CacheOptions options;
  options.rope = std::make_shared<Rope>(RopeParams{.dims = 32}, 32);
  return make_cache("zeromerge:merge=drop,replay=60%,tail=8,budget=120," + settings, kGeometry, options);
}

std::vector<std::uint32_t> positions(const AnyLayer& layer, std::size_t h, std::size_t first, std::size_t n) {
  std::vector<std::uint32_t> all;
  for (std::size_t j = first; j < first + n; ++j) all.push_back(layer.position(h, j));
  return all;
}

TEST(Hold, HalvesWhatReplayChoseAndLetsTheLastSlotsGoFirst) {
  for (const char* block : {"", ",evict=5"}) {
    const auto cache = made(std::string("hold=64") + block);
    const test::Tokens t(kGeometry, kPrompt + 400, 3);
    AnyLayer& layer = cache->layer(0);
    test::prefill(layer, t, 0, kPrompt);
    layer.finish_prompt();
    const std::size_t chosen = layer.state(0).rated;
    ASSERT_GT(chosen, 60u);
    const auto before = positions(layer, 1, 4, chosen);
    for (std::size_t n = 1; n <= 320; ++n) {
      test::decode(layer, t, kPrompt + n - 1);
      const double left = static_cast<double>(chosen) * std::exp2(-static_cast<double>(n) / 64.0);
      // A block leaves at once, and then as many tokens count.
      ASSERT_NEAR(static_cast<double>(layer.state(1).rated), left, *block == 0 ? 1.5 : 6.0) << n;
      const std::size_t rated = layer.state(1).rated;
      ASSERT_EQ(
          positions(layer, 1, 4, rated),
          std::vector<std::uint32_t>(before.begin(), before.begin() + static_cast<std::ptrdiff_t>(rated)));
    }
  }
}

TEST(Hold, IsForGoodWithoutIt) {
  const auto cache = made("hold=0");
  const test::Tokens t(kGeometry, kPrompt + 200, 4);
  AnyLayer& layer = cache->layer(0);
  test::prefill(layer, t, 0, kPrompt);
  layer.finish_prompt();
  const std::size_t chosen = layer.state(0).rated;
  const auto before = positions(layer, 0, 4, chosen);
  for (std::size_t n = 0; n < 200; ++n) test::decode(layer, t, kPrompt + n);
  EXPECT_EQ(layer.state(0).rated, chosen);
  EXPECT_EQ(positions(layer, 0, 4, chosen), before);
}

TEST(Hold, GoesOnFromACheckpointAsItWas) {
  const auto cache = made("hold=50");
  const test::Tokens t(kGeometry, kPrompt + 200, 6);
  AnyLayer& layer = cache->layer(0);
  test::prefill(layer, t, 0, kPrompt);
  std::vector<std::size_t> rated[2];
  std::unique_ptr<AnyCheckpoint> then;
  for (std::size_t n = 0; n < 90; ++n) {
    if (n == 30) then = layer.checkpoint();
    test::decode(layer, t, kPrompt + n);
    if (n >= 30) rated[0].push_back(layer.state(0).rated);
  }
  layer.rollback(*then);
  for (std::size_t n = 30; n < 90; ++n) {
    test::decode(layer, t, kPrompt + n);
    rated[1].push_back(layer.state(0).rated);
  }
  EXPECT_EQ(rated[0], rated[1]);
  EXPECT_LT(rated[0].back(), rated[0].front());
}

TEST(Hold, ComesByFallingRating) {
  const auto cache = made("hold=64,storage=f32");
  const test::Tokens t(kGeometry, kPrompt, 5);
  AnyLayer& layer = cache->layer(0);
  test::prefill(layer, t, 0, kPrompt);
  layer.finish_prompt();
  for (std::size_t h = 0; h < 2; ++h) {
    const auto rating = test::PlainPrompt(t, kPrompt).replay(h);
    const auto slots = positions(layer, h, 4, layer.state(h).rated);
    for (std::size_t i = 1; i < slots.size(); ++i)
      EXPECT_LE(rating[slots[i]], rating[slots[i - 1]] * 1.001) << "head " << h << ", rated entry " << i;
  }
}

}  // namespace
}  // namespace zeromerge
