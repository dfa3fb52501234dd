// The whole cache: bytes, threads, layers and sequences.
#include "zeromerge/cache/cache.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "support/held.hpp"
#include "support/sequence.hpp"

namespace zeromerge {
namespace {

using test::Tokens;

const Geometry kGeometry{.query_heads = 6, .kv_heads = 2, .head_dim = 24};

template <class P>
std::size_t head_bytes(const KvCache<P>& cache) {
  std::size_t all = 0;
  for (std::size_t s = 0; s < cache.sequences(); ++s)
    for (std::size_t l = 0; l < cache.geometry().layers; ++l)
      for (std::size_t h = 0; h < cache.geometry().kv_heads; ++h) all += cache.layer(l, s).head(h).bytes();
  return all;
}
template <class P>
std::size_t layer_bytes(const KvCache<P>& cache) {
  std::size_t all = 0;
  for (std::size_t s = 0; s < cache.sequences(); ++s)
    for (std::size_t l = 0; l < cache.geometry().layers; ++l) all += cache.layer(l, s).bytes();
  return all;
}

// ---- bytes

TEST(CacheBytes, HeldIsTheSumOfTheHeadsAndTheWindowAtEveryStep) {
  const Geometry g{.layers = 2, .query_heads = 6, .kv_heads = 3, .head_dim = 24};
  const Tokens t(g, 300, 1);
  for (const char* settings :
       {"budget=40,residual=2", "budget=40,score=exact", "budget=40,merge=drop,heads=adaptive",
        "budget=40,bounded=1", "budget=100000"}) {
    SCOPED_TRACE(settings);
    CacheOptions options;
    options.sequences = 2;
    options.chunk = 50;
    auto cache = test::make<f16>(settings, g, options);
    EXPECT_EQ(cache.bytes().held, 0u);
    const auto check = [&](bool in_prompt) {
      ASSERT_EQ(cache.bytes().held, layer_bytes(cache));
      ASSERT_GE(cache.bytes().held, head_bytes(cache));
      ASSERT_TRUE(in_prompt || cache.bytes().held == head_bytes(cache)) << "a window outlives its prompt";
      ASSERT_GE(cache.bytes().peak, cache.bytes().held);
    };
    for (std::size_t s = 0; s < 2; ++s)
      for (std::size_t l = 0; l < 2; ++l) {
        auto& layer = cache.layer(l, s);
        for (const auto& [first, n] : {std::pair<std::size_t, std::size_t>{0, 90}, {90, 1}, {91, 109}}) {
          (void)test::prefill(layer, t, first, n);
          check(true);
        }
        layer.finish_prompt();
        check(false);
        for (std::size_t token = 200; token < 300; ++token) {
          (void)test::decode(layer, t, token);
          check(false);
        }
      }
    cache.clear(0);
    EXPECT_EQ(cache.bytes().held, cache.layer(0, 1).bytes() + cache.layer(1, 1).bytes());
    cache.clear(1);
    EXPECT_EQ(cache.bytes().held, 0u);
  }
}

TEST(CacheBytes, EachHeadHoldsWhatItsOwnEntriesTake) {
  const Tokens t(kGeometry, 400, 2);
  auto cache = test::make<f16>("budget=64,heads=adaptive,floor=0%,least=20,tail=2,sinks=0", kGeometry);
  (void)test::prefill(cache.layer(0), t, 0, 400);
  cache.finish_prompt();
  for (std::size_t h = 0; h < 2; ++h) {
    const auto& head = cache.layer(0).head(h);
    const std::size_t slots = (head.size() + 1 + 15) / 16 * 16;
    const std::size_t expected = slots * (24 * 2 + 4 * 4) + (head.size() + 1) * 32 * 2;
    EXPECT_GE(head.bytes(), expected);
    EXPECT_LE(head.bytes(), expected + 6 * Block::kAlignment);
  }
}

TEST(CacheBytes, ABoundedPromptsPeakIsTheBudgetAndOneChunkWhateverItsLength) {
  const Geometry g{.query_heads = 4, .kv_heads = 2, .head_dim = 16};
  const auto peak = [&](std::size_t prompt) {
    const Tokens t(g, prompt, 3);
    CacheOptions options;
    options.chunk = 256;
    auto cache = test::make<f16>("budget=128,bounded=1", g, options);
    (void)test::prefill(cache.layer(0), t, 0, prompt);
    cache.finish_prompt();
    EXPECT_EQ(cache.layer(0).head(0).size(), 128u);
    return cache.bytes().peak;
  };
  const std::size_t short_peak = peak(2000);
  EXPECT_EQ(peak(8000), short_peak);
  // Both heads at budget + chunk, both targets, the window of 256 rows, blocks rounded up.
  const std::size_t entry = 16 * 2 * 2 + 16;
  const std::size_t window = 256 * 2 * (2 * 16 * 2 + 2 * 4);
  EXPECT_LE(short_peak, 2 * (128 + 256 + 128 + 1 + 32) * entry + window + 16 * Block::kPage);
}

TEST(CacheBytes, AnUnboundedPromptGivesBackWhatTheBudgetDoesNotKeep) {
  const Tokens t(kGeometry, 2000, 4);
  auto cache = test::make<f16>("budget=5%", kGeometry);
  (void)test::prefill(cache.layer(0), t, 0, 2000);
  const std::size_t before = cache.bytes().held;
  cache.finish_prompt();
  EXPECT_LT(cache.bytes().held * 15, before);
  EXPECT_GE(cache.bytes().peak, before);
}

// ---- threads

std::vector<float> run_with(Executor executor, const std::string& settings, const Geometry& g,
                            const Tokens& t, test::HeldLayer& held) {
  CacheOptions options;
  options.executor = std::move(executor);
  options.chunk = 100;
  auto cache = test::make<f16>(settings, g, options);
  auto all = test::prefill(cache.layer(0), t, 0, 250);
  for (const auto& [first, n] : {std::pair<std::size_t, std::size_t>{250, 37}, {287, 400}}) {
    const auto out = test::prefill(cache.layer(0), t, first, n);
    all.insert(all.end(), out.begin(), out.end());
  }
  for (std::size_t token = 687; token < t.count; ++token) {
    const auto out = test::decode(cache.layer(0), t, token);
    all.insert(all.end(), out.begin(), out.end());
  }
  held = test::held_layer(cache.layer(0), g.kv_heads);
  return all;
}

TEST(CacheThreads, TheirNumberChangesNoBit) {
  const Geometry g{.query_heads = 9, .kv_heads = 3, .head_dim = 24};
  const Tokens t(g, 720, 5);
  for (const char* settings : {"budget=600,residual=3", "budget=50,score=exact",
                               "budget=100,heads=adaptive,residual=10%", "budget=100,bounded=1"}) {
    SCOPED_TRACE(settings);
    test::HeldLayer expected_held;
    const auto expected = run_with(serial(), settings, g, t, expected_held);
    for (const std::size_t count : {2u, 3u, 5u}) {
      test::HeldLayer held;
      EXPECT_TRUE(test::same_bits(run_with(threads(count), settings, g, t, held), expected))
          << count << " threads";
      EXPECT_EQ(test::difference(held, expected_held), "") << count << " threads";
    }
    // Any order of the items is allowed as well.
    test::HeldLayer held;
    const Executor backwards = [](std::size_t count, LoopBody body) {
      for (std::size_t i = count; i > 0; --i) body(i - 1);
    };
    EXPECT_TRUE(test::same_bits(run_with(backwards, settings, g, t, held), expected));
    EXPECT_EQ(test::difference(held, expected_held), "");
  }
}

TEST(CacheThreads, AnExecutorCanBeExchangedBetweenCalls) {
  const Tokens t(kGeometry, 130, 6);
  auto plain = test::make("budget=40", kGeometry);
  auto mixed = test::make("budget=40", kGeometry);
  const auto expected = test::run(plain.layer(0), t, 100);
  auto all = test::prefill(mixed.layer(0), t, 0, 100);
  for (std::size_t token = 100; token < 130; ++token) {
    mixed.set_executor(token % 2 == 0 ? threads(3) : serial());
    const auto out = test::decode(mixed.layer(0), t, token);
    all.insert(all.end(), out.begin(), out.end());
  }
  EXPECT_TRUE(test::same_bits(all, expected));
}

// ---- layers and sequences

TEST(CacheSequences, InterleavedOnesEqualSeparateCachesBitForBit) {
  const Geometry g{.layers = 2, .query_heads = 6, .kv_heads = 2, .head_dim = 24};
  const Tokens a(g, 140, 7);
  const Tokens b(g, 140, 8);
  CacheOptions options;
  options.sequences = 2;
  auto both = test::make("budget=40,residual=2", g, options);
  auto only_a = test::make("budget=40,residual=2", g);
  auto only_b = test::make("budget=40,residual=2", g);
  const auto expect_same = [](const std::vector<float>& x, const std::vector<float>& y) {
    EXPECT_TRUE(test::same_bits(x, y));
  };
  for (std::size_t l = 0; l < 2; ++l) {
    expect_same(test::prefill(both.layer(l, 0), a, 0, 90), test::prefill(only_a.layer(l), a, 0, 90));
    expect_same(test::prefill(both.layer(l, 1), b, 0, 35), test::prefill(only_b.layer(l), b, 0, 35));
  }
  for (std::size_t token = 90; token < 140; ++token)
    for (std::size_t l = 0; l < 2; ++l) {
      expect_same(test::decode(both.layer(l, 0), a, token), test::decode(only_a.layer(l), a, token));
      if (token % 3 == 0)
        expect_same(test::prefill(both.layer(l, 1), b, token, 2),
                    test::prefill(only_b.layer(l), b, token, 2));
      expect_same(test::decode(both.layer(l, 1), b, token), test::decode(only_b.layer(l), b, token));
    }
  for (std::size_t l = 0; l < 2; ++l) {
    EXPECT_EQ(test::difference(test::held_layer(both.layer(l, 0), 2), test::held_layer(only_a.layer(l), 2)),
              "");
    EXPECT_EQ(test::difference(test::held_layer(both.layer(l, 1), 2), test::held_layer(only_b.layer(l), 2)),
              "");
  }
  both.clear(0);
  EXPECT_EQ(both.layer(0, 0).tokens(), 0u);
  EXPECT_EQ(test::difference(test::held_layer(both.layer(1, 1), 2), test::held_layer(only_b.layer(1), 2)),
            "");
}

TEST(CacheSequences, FinishingOneLeavesTheOthersInTheirPrompts) {
  const Geometry g{.layers = 2, .query_heads = 2, .kv_heads = 1, .head_dim = 8};
  const Tokens t(g, 60, 9);
  CacheOptions options;
  options.sequences = 2;
  auto cache = test::make("budget=32", g, options);
  for (std::size_t s = 0; s < 2; ++s)
    for (std::size_t l = 0; l < 2; ++l) (void)test::prefill(cache.layer(l, s), t, 0, 60);
  cache.finish_prompt(1);
  EXPECT_TRUE(cache.layer(0, 0).in_prompt());
  EXPECT_EQ(cache.layer(1, 0).head(0).size(), 60u);
  EXPECT_FALSE(cache.layer(1, 1).in_prompt());
  EXPECT_EQ(cache.layer(1, 1).head(0).size(), 32u);
}

TEST(CacheSequences, CachesThatShareAWorkspaceDoNotDisturbEachOther) {
  const Tokens a(kGeometry, 120, 10);
  const Tokens b(kGeometry, 120, 11);
  CacheOptions options;
  options.workspace = std::make_shared<Workspace>();
  auto first = test::make("budget=40", kGeometry, options);
  auto second = test::make("budget=50,residual=3", kGeometry, options);
  auto alone = test::make("budget=40", kGeometry);
  EXPECT_TRUE(
      test::same_bits(test::prefill(first.layer(0), a, 0, 100), test::prefill(alone.layer(0), a, 0, 100)));
  for (std::size_t token = 100; token < 120; ++token) {
    (void)test::prefill(second.layer(0), b, token - 100, 1);
    EXPECT_TRUE(
        test::same_bits(test::decode(first.layer(0), a, token), test::decode(alone.layer(0), a, token)));
  }
  EXPECT_EQ(first.workspace_bytes(), second.workspace_bytes());
}

TEST(Cache, LayersKnowTheirNumberInTheModel) {
  CacheOptions options;
  options.first_layer = 10;
  auto cache = test::make("budget=40", {.layers = 3}, options);
  EXPECT_EQ(cache.layer(0).index(), 10u);
  EXPECT_EQ(cache.layer(2).index(), 12u);
}

TEST(Cache, AMovedCacheGoesOnAndTheOneItReplacedIsFreed) {
  const Tokens t(kGeometry, 120, 12);
  auto stays = test::make("budget=40", kGeometry);
  auto goes = test::make("budget=40", kGeometry);
  const auto expected = test::prefill(stays.layer(0), t, 0, 100);
  (void)test::prefill(goes.layer(0), t, 0, 100);
  auto moved = std::move(goes);
  EXPECT_TRUE(test::same_bits(test::decode(moved.layer(0), t, 100), test::decode(stays.layer(0), t, 100)));
  auto target = test::make("budget=33", kGeometry);
  (void)test::prefill(target.layer(0), t, 0, 50);
  target = std::move(moved);
  EXPECT_TRUE(test::same_bits(test::decode(target.layer(0), t, 101), test::decode(stays.layer(0), t, 101)));
  EXPECT_EQ(target.layer(0).head(0).size(), 40u);
  EXPECT_EQ(target.bytes().held, stays.bytes().held);
}

TEST(Cache, ImpossibleArgumentsAreRefusedWithTheirNumbers) {
  const auto refusal = [](const Geometry& g, CacheOptions options, std::size_t layer,
                          std::size_t sequence) -> std::string {
    try {
      auto cache = test::make("budget=40", g, std::move(options));
      (void)cache.layer(layer, sequence);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  CacheOptions none;
  none.sequences = 0;
  CacheOptions chunk;
  chunk.chunk = 0;
  EXPECT_EQ(refusal({}, {}, 0, 0), "");
  EXPECT_NE(refusal({.query_heads = 3, .kv_heads = 2}, {}, 0, 0), "");
  EXPECT_NE(refusal({}, none, 0, 0), "");
  EXPECT_NE(refusal({}, chunk, 0, 0), "");
  EXPECT_NE(refusal({.layers = 2}, {}, 2, 0).find("asked for layer 2 of sequence 0"), std::string::npos);
  EXPECT_NE(refusal({.layers = 2}, {}, 1, 1).find("1 sequences"), std::string::npos);
}

}  // namespace
}  // namespace zeromerge
