// Entries in four bits stay as they are while the ring of last tokens turns beside them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "support/sequence.hpp"
#include "zeromerge/cache/presets.hpp"

namespace zeromerge {
namespace {

constexpr Geometry kGeometry{.layers = 1, .query_heads = 4, .kv_heads = 2, .head_dim = 64};

// By position, the numbers of every entry but the last `ring`.
std::map<std::size_t, std::vector<float>> held(const AnyLayer& layer, std::size_t h, std::size_t ring) {
  std::map<std::size_t, std::vector<float>> all;
  for (std::size_t j = 0; j + ring < layer.entries(h); ++j) {
    std::vector<float> numbers(2 * kGeometry.head_dim);
    layer.read_key(h, j, numbers.data());
    layer.read_value(h, j, numbers.data() + kGeometry.head_dim);
    all[layer.position(h, j)] = numbers;
  }
  return all;
}

// Everything beside the ring was chosen by replay, which is for good: only the ring changes.
TEST(LooseRing, NeverRoundsItsNeighboursAgain) {
  for (const std::size_t budget : {97, 110, 127, 128, 150}) {
    CacheOptions options;
    options.rope = std::make_shared<Rope>(RopeParams{.dims = 64}, 64);
    const std::string spec = "best:heads=uniform,hold=0,precise=0,budget=" + std::to_string(budget);
    const auto cache = make_cache(spec, kGeometry, options);
    const test::Tokens t(kGeometry, 500, budget);
    AnyLayer& layer = cache->layer(0);
    test::prefill(layer, t, 0, 300);
    layer.finish_prompt();
    std::vector<std::map<std::size_t, std::vector<float>>> before;
    for (std::size_t h = 0; h < 2; ++h) before.push_back(held(layer, h, 15));
    for (std::size_t token = 300; token < 450; ++token) test::decode(layer, t, token);
    for (std::size_t h = 0; h < 2; ++h) {
      EXPECT_EQ(layer.entries(h), budget);
      EXPECT_EQ(held(layer, h, 15), before[h]) << budget << " entries, head " << h;
    }
    // And the ring is as precise as 8 bits.
    for (std::size_t j = budget - 15; j < budget; ++j) {
      const std::size_t token = layer.position(0, j);
      std::vector<float> key(64);
      layer.read_key(0, j, key.data());
      float most = 0.0f;
      for (std::size_t d = 0; d < 64; ++d) most = std::max(most, std::abs(t.key(token, 0)[d]));
      for (std::size_t d = 0; d < 64; ++d) ASSERT_NEAR(key[d], t.key(token, 0)[d], most / 253.0f);
    }
  }
}

}  // namespace
}  // namespace zeromerge
