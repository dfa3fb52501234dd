// Layers that differ in heads, rows, scale, cap and RoPE: each does what it would do in a cache of its own,
// and budgets over layers count every head.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "support/held.hpp"
#include "support/refusal.hpp"
#include "support/sequence.hpp"
#include "support/temporary_file.hpp"

namespace zeromerge {
namespace {

using test::Tokens;

constexpr std::size_t kPrompt = 120;

// Layers of these kv heads, with rows of 16 and 24 in turns.
Geometry of_heads(const std::vector<std::size_t>& kv_heads, bool same_rows = false) {
  Geometry g{.layers = kv_heads.size()};
  for (std::size_t l = 0; l < kv_heads.size(); ++l)
    g.shapes.push_back({.query_heads = 2 * kv_heads[l],
                        .kv_heads = kv_heads[l],
                        .head_dim = same_rows || l % 2 == 0 ? 16u : 24u,
                        .scale = l % 2 == 0 ? 0.0f : 0.125f,
                        .logit_softcap = l % 3 == 2 ? 20.0f : 0.0f});
  return g;
}

// One layer of it alone.
Geometry alone(const Geometry& g, std::size_t layer) {
  const LayerShape s = g.shape(layer);
  return {.layers = 1,
          .query_heads = s.query_heads,
          .kv_heads = s.kv_heads,
          .head_dim = s.head_dim,
          .scale = s.scale,
          .logit_softcap = s.logit_softcap};
}

std::shared_ptr<const Rope> rope(std::size_t head_dim, std::size_t dims, double base = 10000.0) {
  return std::make_shared<Rope>(RopeParams{.dims = dims, .base = base}, head_dim);
}

// A RoPE for each layer, of different bases.
CacheOptions options(const Geometry& g) {
  CacheOptions o;
  for (std::size_t l = 0; l < g.layers; ++l)
    o.ropes.push_back(rope(g.shape(l).head_dim, g.shape(l).head_dim, 1000.0 * static_cast<double>(l + 1)));
  return o;
}

std::vector<Tokens> model(const Geometry& g, std::uint64_t seed, std::size_t count = kPrompt + 60) {
  std::vector<Tokens> all;
  for (std::size_t l = 0; l < g.layers; ++l) {
    all.emplace_back(alone(g, l), count, seed + l);
    for (float& x : all.back().q) x *= 0.5f + 0.5f * static_cast<float>(l);
  }
  return all;
}

template <class Cache>
std::size_t capacities(Cache& cache) {
  std::size_t sum = 0;
  for (std::size_t l = 0; l < cache.geometry().layers; ++l)
    for (std::size_t h = 0; h < cache.layer(l).shape().kv_heads; ++h)
      sum += cache.layer(l).state(h).division.capacity;
  return sum;
}

template <class Cache>
std::size_t entries(Cache& cache) {
  std::size_t sum = 0;
  for (std::size_t l = 0; l < cache.geometry().layers; ++l)
    for (std::size_t h = 0; h < cache.layer(l).shape().kv_heads; ++h) sum += cache.layer(l).head(h).size();
  return sum;
}

std::size_t heads_of(const Geometry& g) {
  std::size_t sum = 0;
  for (std::size_t l = 0; l < g.layers; ++l) sum += g.shape(l).kv_heads;
  return sum;
}

TEST(LayerShapes, EachLayerDoesWhatItWouldDoAlone) {
  const Geometry g = of_heads({3, 5, 1});
  const auto t = model(g, 1);
  for (const char* policy :
       {"full", "zeromerge:budget=40", "adakv:budget=40", "best:heads=uniform,budget=40",
        "zeromerge:budget=8000B,storage=q8", "zeromerge:budget=40,storage=q4,refit=16"}) {
    const auto cache = make_cache(policy, g, options(g));
    for (std::size_t l = 0; l < g.layers; ++l) {
      CacheOptions own{.rope = options(g).ropes[l]};
      const auto one = make_cache(policy, alone(g, l), own);
      EXPECT_EQ(cache->layer(l).shape(), g.shape(l));
      EXPECT_TRUE(
          test::same_bits(test::run(cache->layer(l), t[l], kPrompt), test::run(one->layer(0), t[l], kPrompt)))
          << policy << ", layer " << l;
      for (std::size_t h = 0; h < g.shape(l).kv_heads; ++h)
        EXPECT_EQ(cache->layer(l).entries(h), one->layer(0).entries(h)) << policy << ", layer " << l;
    }
  }
}

TEST(LayerShapes, LayersGivenOneByOneThatAreAlikeAreTheSameAsOneShapeForAll) {
  const Geometry same{.layers = 3, .query_heads = 4, .kv_heads = 2, .head_dim = 16};
  Geometry listed{.layers = 3};
  listed.shapes.assign(3, same.shape(0));
  const auto t = model(same, 2);
  for (const char* settings : {"heads=two-stage,replay=100%,merge=drop", "heads=pyramid", "heads=global"}) {
    CacheOptions o{.rope = rope(16, 16)};
    auto a = test::make(std::string("tail=10,budget=40,") + settings, same, o);
    auto b = test::make(std::string("tail=10,budget=40,") + settings, listed, o);
    for (std::size_t l = 0; l < 3; ++l)
      for (auto* cache : {&a, &b}) (void)test::prefill(cache->layer(l), t[l], 0, kPrompt);
    a.finish_prompt();
    b.finish_prompt();
    for (std::size_t l = 0; l < 3; ++l)
      EXPECT_EQ(test::difference(test::held_layer(a.layer(l), 2), test::held_layer(b.layer(l), 2)), "");
  }
}

// Every head has its own capacity, and the total is what the budget says; all at once and one by one.
TEST(LayerShapes, BudgetsOverLayersCountEveryHead) {
  for (const auto& heads : {std::vector<std::size_t>{3, 5}, std::vector<std::size_t>{5, 3},
                            std::vector<std::size_t>{1, 4, 2, 4}}) {
    const Geometry g = of_heads(heads);
    const auto t = model(g, 3);
    for (const char* settings : {"heads=two-stage", "heads=two-stage,replay=100%,merge=drop",
                                 "heads=global,window=100%", "heads=pyramid", "heads=pyramid,residual=3"})
      for (const bool together : {true, false}) {
        SCOPED_TRACE(std::string(settings) + (together ? ", together" : ", one by one"));
        auto cache = test::make(std::string("tail=10,least=8,budget=50,") + settings, g, options(g));
        for (std::size_t i = 0; i < g.layers; ++i) {
          const std::size_t l = together ? i : g.layers - 1 - i;
          (void)test::prefill(cache.layer(l), t[l], 0, kPrompt);
          if (!together) cache.layer(l).finish_prompt();
        }
        cache.finish_prompt();
        EXPECT_EQ(capacities(cache), 50 * heads_of(g));
        EXPECT_EQ(entries(cache), 50 * heads_of(g));
        for (std::size_t token = kPrompt; token < kPrompt + 40; ++token)
          for (std::size_t l = 0; l < g.layers; ++l) (void)test::decode(cache.layer(l), t[l], token);
        EXPECT_EQ(entries(cache), 50 * heads_of(g));
      }
  }
}

TEST(LayerShapes, APackedBudgetOverLayersCountsEveryHead) {
  const Geometry g = of_heads({3, 5});
  const auto t = model(g, 4, 400);
  const auto cache = make_cache("best:budget=25%,least=32,precise=0", g, options(g));
  for (std::size_t l = 0; l < g.layers; ++l) (void)test::prefill(cache->layer(l), t[l], 0, 360);
  cache->finish_prompt();
  std::size_t sum = 0;
  for (std::size_t l = 0; l < g.layers; ++l)
    for (std::size_t h = 0; h < cache->layer(l).shape().kv_heads; ++h)
      sum += cache->layer(l).state(h).division.capacity;
  EXPECT_EQ(sum, 8u * 90u);
}

// Rows of different length under one budget in bytes: the bytes of all heads, as long as entries do not crowd
// where rows are long.
TEST(LayerShapes, ABudgetInBytesOverLayersHoldsForTheirSum) {
  const Geometry g{.layers = 2,
                   .shapes = {{.query_heads = 2, .kv_heads = 2, .head_dim = 64},
                              {.query_heads = 4, .kv_heads = 4, .head_dim = 128}}};
  const std::vector<Tokens> t = {{alone(g, 0), 900, 5}, {alone(g, 1), 900, 6}};
  for (const std::size_t bytes : {30000u, 60000u}) {
    const auto cache = make_cache("best:precise=0,budget=" + std::to_string(bytes) + "B", g, options(g));
    for (std::size_t l = 0; l < g.layers; ++l) (void)test::prefill(cache->layer(l), t[l], 0, 800);
    cache->finish_prompt();
    EXPECT_NEAR(static_cast<double>(cache->bytes().held), 6.0 * static_cast<double>(bytes),
                0.12 * 6.0 * static_cast<double>(bytes));
    EXPECT_NE(cache->layer(0).bytes() / 2, cache->layer(1).bytes() / 4) << "longer rows take more";
  }
}

TEST(LayerShapes, AProfileOfAnotherShapeIsRefusedWithBoth) {
  const test::TemporaryFile profile("zeromerge-profile 1 layers 2 kv_heads 3 budget 0.1 1 2 3 1 2 3");
  const Geometry g = of_heads({3, 5});
  const auto t = model(g, 6);
  for (const char* heads : {"profile", "two-stage"}) {
    auto cache = test::make(std::string("budget=50,heads=") + heads + ",profile=" + profile.path(), g);
    for (std::size_t l = 0; l < 2; ++l) (void)test::prefill(cache.layer(l), t[l], 0, kPrompt);
    const std::string text = test::refusal([&] { cache.finish_prompt(); });
    EXPECT_TRUE(test::contains(text, "it has 2 layers of 3 kv heads, the cache asks for layer 1 with 5"))
        << text;
    EXPECT_TRUE(cache.layer(0).in_prompt()) << heads;
  }
}

TEST(LayerShapes, ImpossibleOnesAreRefusedWithTheLayer) {
  const auto refused = [](const Geometry& g) { return test::refusal([&] { (void)make_cache("full", g); }); };
  Geometry g = of_heads({3, 5});
  g.layers = 3;
  EXPECT_TRUE(test::contains(refused(g), "a shape for each of 3 layers, or none, got 2"));
  g = of_heads({3, 5});
  g.shapes[1].query_heads = 7;
  EXPECT_TRUE(test::contains(refused(g), "layer 1: query_heads must be a multiple of kv_heads, got 7 and 5"));
  g.shapes[1] = {.head_dim = 2000};
  EXPECT_TRUE(test::contains(refused(g), "layer 1: head_dim may be at most 1024, got 2000"));
}

// ---- RoPEs

TEST(Ropes, OneForAllIsTheSameAsOneForEach) {
  const Geometry g{.layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 16};
  const auto t = model(g, 7);
  const auto outputs = [&](const CacheOptions& o) {
    const auto cache = make_cache("best:budget=40", g, o);
    std::vector<float> all;
    for (std::size_t l = 0; l < 2; ++l) (void)test::prefill(cache->layer(l), t[l], 0, kPrompt);
    for (std::size_t l = 0; l < 2; ++l)
      for (const float x : test::decode(cache->layer(l), t[l], kPrompt)) all.push_back(x);
    return all;
  };
  const auto one = rope(16, 16), other = rope(16, 16, 500.0);
  const auto expected = outputs({.rope = one});
  EXPECT_TRUE(test::same_bits(outputs({.ropes = {one, one}}), expected));
  EXPECT_TRUE(test::same_bits(outputs({.rope = other, .ropes = {one, one}}), expected)) << "ropes count";
  EXPECT_FALSE(test::same_bits(outputs({.ropes = {one, other}}), expected));
}

// It would write beyond the rows of its layer.
TEST(Ropes, OneThatDoesNotFitItsLayerIsRefusedWithBothNumbers) {
  const Geometry g{.layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 64};
  const auto refused = [&](const char* policy, CacheOptions o) {
    return test::refusal([&] { (void)make_cache(policy, g, std::move(o)); });
  };
  for (const char* policy : {"best", "full"}) {
    EXPECT_TRUE(test::contains(refused(policy, {.rope = rope(128, 128)}),
                               "128 channels from 0 on do not turn in pairs within a head_dim of 64"));
    const auto late = std::make_shared<Rope>(RopeParams{.dims = 32, .first = 48}, 80);
    EXPECT_TRUE(test::contains(refused(policy, {.ropes = {rope(64, 64), late}}), "32 channels from 48 on"));
  }
  EXPECT_EQ(refused("best", {.rope = rope(128, 64)}), "") << "what turns lies within";
  EXPECT_TRUE(test::contains(refused("best", {.ropes = {rope(64, 64)}}), "each of 2 layers"));
  EXPECT_TRUE(test::contains(refused("best", {.ropes = {rope(64, 64), nullptr}}), "layer 1 has no RoPE"));
  EXPECT_EQ(refused("full", {.ropes = {nullptr, nullptr}}), "");
}

}  // namespace
}  // namespace zeromerge
