// Going back: what a sequence held at a checkpoint comes back bit for bit, and so does all that follows.
#include "zeromerge/cache/checkpoint.hpp"

#include <gtest/gtest.h>

#include <cctype>
#include <memory>
#include <string>
#include <vector>

#include "support/held.hpp"
#include "support/sequence.hpp"

namespace zeromerge {
namespace {

using test::Tokens;

const Geometry kGeometry{.layers = 2, .query_heads = 6, .kv_heads = 2, .head_dim = 32};

CacheOptions options(std::size_t sequences = 1) {
  CacheOptions o;
  o.sequences = sequences;
  o.rope = std::make_shared<Rope>(RopeParams{.dims = kGeometry.head_dim}, kGeometry.head_dim);
  return o;
}

// Everything a layer tells of itself, as one list of numbers.
std::vector<float> held(const AnyLayer& layer) {
  std::vector<float> all{static_cast<float>(layer.tokens()), layer.in_prompt() ? 1.0f : 0.0f,
                         static_cast<float>(layer.bytes())};
  std::vector<float> row(kGeometry.head_dim);
  for (std::size_t h = 0; h < kGeometry.kv_heads; ++h)
    for (std::size_t j = 0; j < layer.entries(h); ++j) {
      layer.read_key(h, j, row.data());
      all.insert(all.end(), row.begin(), row.end());
      layer.read_value(h, j, row.data());
      all.insert(all.end(), row.begin(), row.end());
      all.insert(all.end(), {layer.score(h, j), layer.mass(h, j), static_cast<float>(layer.position(h, j))});
    }
  return all;
}

std::vector<float> decode_some(AnyLayer& layer, const Tokens& t, std::size_t first, std::size_t count) {
  std::vector<float> all;
  for (std::size_t token = first; token < first + count; ++token)
    for (const float x : test::decode(layer, t, token)) all.push_back(x);
  return all;
}

class Checkpoints : public testing::TestWithParam<std::string> {};

INSTANTIATE_TEST_SUITE_P(
    Policies, Checkpoints,
    testing::Values("full:storage=f16", "full:storage=q8", "full:storage=q4",
                    "zeromerge:budget=40,residual=3,storage=f16", "zeromerge:budget=40,residual=3,storage=q8",
                    "zeromerge:budget=40,residual=3,storage=q4", "zeromerge:budget=40,keys=q4,values=f16",
                    "zeromerge:budget=40,storage=f32,reference=1", "h2o:budget=40,storage=f16",
                    "h2o:budget=40,storage=q8", "h2o:budget=40,storage=q4", "best:budget=40",
                    "best:budget=40,storage=f16,hold=8", "keydiff:budget=40", "adakv:budget=40",
                    "zeromerge:budget=40,merge=nearest,evict=16"),
    [](const auto& test) {
      std::string name = test.param;
      for (char& c : name)
        if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
      return name;
    });

TEST_P(Checkpoints, BringBackWhatWasEvictedAndTheSameBitsFollow) {
  const Tokens t(kGeometry, 400, 7);
  const auto cache = make_cache(GetParam(), kGeometry, options());
  AnyLayer& layer = cache->layer(1);
  test::prefill(layer, t, 0, 90);
  decode_some(layer, t, 90, 21);
  const auto before = held(layer);
  const std::size_t bytes = cache->bytes().held;
  const auto checkpoint = layer.checkpoint();
  EXPECT_EQ(checkpoint->tokens(), 111u);
  EXPECT_EQ(checkpoint->bytes(), layer.bytes());
  EXPECT_EQ(cache->bytes().held, bytes + checkpoint->bytes()) << "a checkpoint's bytes are not counted";

  const auto expected = decode_some(layer, t, 111, 100);
  const auto after = held(layer);
  ASSERT_FALSE(test::same_bits(before, after));
  for (const int round : {1, 2}) {
    SCOPED_TRACE(round);
    layer.rollback(*checkpoint);
    EXPECT_TRUE(test::same_bits(held(layer), before));
    EXPECT_EQ(cache->bytes().held, bytes + checkpoint->bytes());
    EXPECT_TRUE(test::same_bits(decode_some(layer, t, 111, 100), expected));
    EXPECT_TRUE(test::same_bits(held(layer), after));
    decode_some(layer, t, 250, 30 * static_cast<std::size_t>(round));  // something else in between
  }
}

TEST_P(Checkpoints, MayLieWithinAPromptOrBeforeTheNextOne) {
  const Tokens t(kGeometry, 300, 8);
  const auto cache = make_cache(GetParam(), kGeometry, options());
  AnyLayer& layer = cache->layer(0);
  test::prefill(layer, t, 0, 70);
  const auto within = layer.checkpoint();
  const auto go_on = [&] {
    auto all = test::prefill(layer, t, 70, 50);
    for (const float x : decode_some(layer, t, 120, 40)) all.push_back(x);
    return all;
  };
  const auto expected = go_on();
  const auto between = layer.checkpoint();
  const auto next = [&] {
    auto all = test::prefill(layer, t, 160, 40);
    for (const float x : decode_some(layer, t, 200, 40)) all.push_back(x);
    return all;
  };
  const auto expected_next = next();
  layer.rollback(*within);
  EXPECT_TRUE(layer.in_prompt());
  EXPECT_TRUE(test::same_bits(go_on(), expected));
  layer.rollback(*between);
  EXPECT_TRUE(test::same_bits(next(), expected_next));
  layer.clear();
  layer.rollback(*between);
  EXPECT_TRUE(test::same_bits(next(), expected_next)) << "after the layer was cleared";
}

TEST_P(Checkpoints, ForkASequence) {
  const Tokens t(kGeometry, 300, 9);
  const auto cache = make_cache(GetParam(), kGeometry, options(2));
  for (std::size_t l = 0; l < kGeometry.layers; ++l) {
    test::prefill(cache->layer(l, 0), t, 0, 90);
    decode_some(cache->layer(l, 0), t, 90, 9 + l);
  }
  const auto checkpoint = cache->checkpoint(0);
  cache->rollback(checkpoint, 1);
  for (std::size_t l = 0; l < kGeometry.layers; ++l)
    EXPECT_TRUE(test::same_bits(decode_some(cache->layer(l, 0), t, 120, 60),
                                decode_some(cache->layer(l, 1), t, 120, 60)));
}

// The queries that a prompt's end looks at again are part of it.
TEST(Checkpoint, KeepsThePromptsQueries) {
  const Tokens t(kGeometry, 200, 10);
  const auto cache = make_cache("zeromerge:budget=30,merge=drop,replay=50%,refit=32", kGeometry, options());
  AnyLayer& layer = cache->layer(0);
  test::prefill(layer, t, 0, 100);
  const auto checkpoint = layer.checkpoint();
  const auto expected = decode_some(layer, t, 100, 20);
  layer.rollback(*checkpoint);
  EXPECT_TRUE(test::same_bits(decode_some(layer, t, 100, 20), expected));
}

TEST(Checkpoint, IsCountedOnlyWhileItLives) {
  const Tokens t(kGeometry, 100, 11);
  const auto cache = make_cache("zeromerge:budget=30", kGeometry, options());
  test::prefill(cache->layer(0), t, 0, 80);
  const std::size_t bytes = cache->bytes().held;
  cache->checkpoint().clear();
  EXPECT_EQ(cache->bytes().held, bytes);
}

TEST(Checkpoint, OfAnotherLayerOrCacheIsRefused) {
  const auto cache = make_cache("zeromerge:budget=30", kGeometry, options());
  const auto other = make_cache("zeromerge:budget=30", kGeometry, options());
  const Tokens t(kGeometry, 60, 12);
  test::prefill(cache->layer(0), t, 0, 60);
  const auto before = held(cache->layer(0));
  EXPECT_THROW(cache->layer(0).rollback(*cache->layer(1).checkpoint()), Error);
  EXPECT_THROW(cache->layer(0).rollback(*other->layer(0).checkpoint()), Error);
  EXPECT_THROW(cache->rollback({}), Error);
  EXPECT_TRUE(test::same_bits(held(cache->layer(0)), before));
}

TEST(Checkpoint, OfAComposedCacheDoesTheSame) {
  auto cache = test::make<f16>("budget=30,residual=2", kGeometry);
  const Tokens t(kGeometry, 200, 13);
  const auto decode_all = [&] {
    for (std::size_t token = 80; token < 160; ++token) test::decode(cache.layer(1), t, token);
    return test::held_layer(cache.layer(1), kGeometry.kv_heads);
  };
  test::prefill(cache.layer(1), t, 0, 80);
  const auto checkpoint = cache.checkpoint();
  const auto expected = decode_all();
  cache.rollback(checkpoint);
  EXPECT_EQ(cache.layer(0).tokens(), 0u);
  EXPECT_EQ(test::difference(decode_all(), expected), "");
}

}  // namespace
}  // namespace zeromerge
