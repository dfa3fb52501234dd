// A budget over layers whose prompts end one by one: in whatever order they do, whatever is taken back,
// forked, cleared or refused between, the total is that of the budget.
#include "zeromerge/cache/budget_share.hpp"

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "support/held.hpp"
#include "support/refusal.hpp"
#include "support/sequence.hpp"

namespace zeromerge {
namespace {

using test::Tokens;
using Counts = std::vector<std::size_t>;

constexpr std::size_t kLayers = 4, kDim = 16, kPrompt = 200;
const Geometry kGeometry{.layers = kLayers, .query_heads = 2, .kv_heads = 1, .head_dim = kDim};
const std::vector<std::string> kShared = {"heads=two-stage,replay=100%,merge=drop", "heads=two-stage",
                                          "heads=global,window=100%", "heads=pyramid"};

// 100 entries a layer, 400 in all.
test::Cache<> made(const std::string& heads, std::size_t sequences = 1) {
  CacheOptions o{.sequences = sequences};
  o.rope = std::make_shared<Rope>(RopeParams{.dims = kDim}, kDim);
  return test::make("tail=10,least=8,budget=100," + heads, kGeometry, std::move(o));
}

// Tokens of every layer, in some of which attention is sharper than in others.
std::vector<Tokens> model(std::uint64_t seed, std::size_t count = kPrompt + 100) {
  std::vector<Tokens> all;
  for (std::size_t l = 0; l < kLayers; ++l) {
    all.emplace_back(kGeometry, count, 10 * seed + l);
    for (float& x : all.back().q) x *= 0.5f + 0.5f * static_cast<float>(l);
  }
  return all;
}

template <class Cache>
void feed(Cache& cache, const std::vector<Tokens>& t, const Counts& layers, std::size_t sequence = 0) {
  for (const std::size_t l : layers) (void)test::prefill(cache.layer(l, sequence), t[l], 0, kPrompt);
}
template <class Cache>
void end(Cache& cache, const Counts& layers, std::size_t sequence = 0) {
  for (const std::size_t l : layers) cache.layer(l, sequence).finish_prompt();
}
const Counts kAll = {0, 1, 2, 3};

template <class Cache>
Counts capacities(Cache& cache, std::size_t sequence = 0) {
  Counts all;
  for (std::size_t l = 0; l < kLayers; ++l)
    all.push_back(cache.layer(l, sequence).state(0).division.capacity);
  return all;
}
std::size_t sum(const Counts& x) {
  std::size_t s = 0;
  for (const std::size_t n : x) s += n;
  return s;
}

TEST(BudgetShare, TheOrderOfLayersDoesNotChangeTheTotal) {
  const auto t = model(1);
  for (const std::string& heads : kShared)
    for (const Counts& order : {Counts{0, 1, 2, 3}, Counts{3, 2, 1, 0}, Counts{2, 0, 3, 1}}) {
      auto cache = made(heads);
      for (const std::size_t l : order) {
        feed(cache, t, {l});
        end(cache, {l});
      }
      EXPECT_EQ(sum(capacities(cache)), 400u) << heads << ", " << order[0] << " first";
    }
}

// The first and last tokens, a merged entry and one more are 16; 84 of 100 follow the pyramid.
TEST(BudgetShare, APyramidGoesByTheLayersPlace) {
  const auto t = model(2);
  auto together = made("heads=pyramid");
  feed(together, t, kAll);
  together.finish_prompt();
  const Counts expected = capacities(together);
  EXPECT_EQ(sum(expected), 400u);
  EXPECT_GT(expected[0], expected[1]);
  EXPECT_GT(expected[2], expected[3]);
  auto backwards = made("heads=pyramid");
  feed(backwards, t, kAll);
  end(backwards, {3, 2, 1, 0});
  EXPECT_EQ(capacities(backwards), expected);
  for (const Counts& alone : {Counts{0}, Counts{2}, Counts{1, 3}}) {
    auto cache = made("heads=pyramid");
    feed(cache, t, kAll);
    end(cache, alone);
    cache.finish_prompt();
    EXPECT_EQ(capacities(cache), expected) << alone[0] << " alone";
  }
}

// 80 entries a head on average, no more than these, from 125 to 35.
TEST(BudgetShare, APyramidsSharesAreTheSameInAnyOrder) {
  auto policy = test::policy("sinks=0,tail=2,merge=drop,least=0,heads=pyramid,budget=80");
  policy.budget.choice = PyramidBudget{count(80), 77.0 / 32.0};
  const auto t = model(3);
  for (const Counts& order : {Counts{0, 1, 2, 3}, Counts{3, 2, 1, 0}}) {
    KvCache<decltype(policy)> cache(kGeometry, policy);
    for (const std::size_t l : order) {
      feed(cache, t, {l});
      end(cache, {l});
    }
    EXPECT_EQ(capacities(cache), (Counts{125, 95, 65, 35}));
  }
}

TEST(BudgetShare, LayersThatEndAloneLeaveTheOthersTheRest) {
  const auto t = model(4);
  for (const std::string& heads : kShared)
    for (const Counts& alone : {Counts{0, 1}, Counts{3, 1}, Counts{2}, Counts{0, 1, 2}}) {
      auto cache = made(heads);
      feed(cache, t, kAll);
      end(cache, alone);
      cache.finish_prompt();
      EXPECT_EQ(sum(capacities(cache)), 400u) << heads << ", " << alone.size() << " alone";
    }
}

TEST(BudgetShare, GoesBackWithTheSequence) {
  const auto t = model(5);
  for (const std::string& heads : kShared)
    for (const std::size_t ended : {1u, 2u, 3u}) {
      SCOPED_TRACE(heads + ", " + std::to_string(ended) + " ended");
      const Counts first(kAll.begin(), kAll.begin() + static_cast<std::ptrdiff_t>(ended));
      const Counts rest(kAll.begin() + static_cast<std::ptrdiff_t>(ended), kAll.end());
      auto cache = made(heads);
      feed(cache, t, kAll);
      const auto before = cache.checkpoint();
      end(cache, first);
      const auto half = cache.checkpoint();
      end(cache, rest);
      const Counts expected = capacities(cache);
      EXPECT_EQ(sum(expected), 400u);
      cache.rollback(half);
      end(cache, rest);
      EXPECT_EQ(capacities(cache), expected) << "to where some had ended";
      cache.rollback(before);
      end(cache, kAll);
      EXPECT_EQ(capacities(cache), expected) << "to where none had";
    }
}

TEST(BudgetShare, GoesWithAFork) {
  const auto t = model(6);
  for (const std::string& heads : kShared) {
    auto cache = made(heads, 2);
    feed(cache, t, kAll);
    end(cache, {0, 1});
    cache.rollback(cache.checkpoint(0), 1);
    auto fork = cache.fork(0);
    end(cache, {2, 3}, 0);
    end(cache, {2, 3}, 1);
    end(fork, {2, 3});
    EXPECT_EQ(sum(capacities(cache, 0)), 400u) << heads;
    EXPECT_EQ(capacities(cache, 1), capacities(cache, 0)) << heads;
    EXPECT_EQ(capacities(fork), capacities(cache, 0)) << heads;
  }
}

// Whether one layer starts anew before or after the others have ended, and in a sequence of its own.
TEST(BudgetShare, OfAClearedLayerIsFreeForItsNextPrompt) {
  const auto t = model(7), other = model(8);
  for (const std::string& heads : kShared)
    for (std::size_t cleared = 0; cleared < kLayers; ++cleared) {
      SCOPED_TRACE(heads + ", layer " + std::to_string(cleared));
      auto cache = made(heads);
      feed(cache, t, kAll);
      end(cache, kAll);
      cache.layer(cleared).clear();
      feed(cache, other, {cleared});
      end(cache, {cleared});
      EXPECT_EQ(sum(capacities(cache)), 400u) << "after all have ended";
      auto half = made(heads);
      feed(half, t, kAll);
      end(half, {0, 1});
      half.layer(cleared).clear();
      feed(half, other, {cleared});
      for (std::size_t l = 0; l < kLayers; ++l) half.layer(l).finish_prompt();
      EXPECT_EQ(sum(capacities(half)), 400u) << "after two have";
    }
}

TEST(BudgetShare, ARefusedEndDoesNotCount) {
  const auto t = model(9);
  for (const std::string& heads : kShared) {
    auto policy = test::policy("tail=10,least=8,budget=100,merge=drop," + heads.substr(0, heads.find(',')));
    policy.prompt_score.choice = SecondReadingScore{};
    policy.prompt_share = 1.0;
    KvCache<decltype(policy)> cache(kGeometry, policy);
    feed(cache, t, kAll);
    const auto read = [&](std::size_t l) {
      cache.layer(l).begin_second_reading();
      (void)test::prefill(cache.layer(l), t[l], kPrompt, 20);
      cache.layer(l).end_second_reading();
    };
    for (int i = 0; i < 3; ++i) EXPECT_THROW(cache.layer(0).finish_prompt(), Error) << heads;
    for (std::size_t l = 0; l < kLayers; ++l) {
      read(l);
      cache.layer(l).finish_prompt();
      if (l + 1 == kLayers) break;
      EXPECT_THROW(cache.finish_prompt(), Error) << heads;
    }
    EXPECT_EQ(sum(capacities(cache)), 400u) << heads;
  }
}

TEST(BudgetShare, KeepsNoValuesWhenAllHaveEnded) {
  const auto t = model(10);
  auto cache = made(kShared[0]);
  feed(cache, t, kAll);
  end(cache, {0, 1, 2});
  EXPECT_FALSE(cache.layer(0).budget_share().best.empty());
  EXPECT_LE(cache.layer(0).budget_share().best.size(), 400u) << "no more can ever matter";
  end(cache, {3});
  for (std::size_t l = 0; l < kLayers; ++l) EXPECT_TRUE(cache.layer(l).budget_share().best.empty());
}

}  // namespace
}  // namespace zeromerge
