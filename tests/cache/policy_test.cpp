// The concepts: minimal models that satisfy them, and for each requirement a type that fails it alone.
#include "zeromerge/cache/policy.hpp"

#include <gtest/gtest.h>

#include <span>
#include <string>
#include <vector>

#include "support/sequence.hpp"
#include "zeromerge/cache/cache.hpp"

namespace zeromerge {
namespace {

// ---- scores

struct MinimalScore {
  static constexpr bool needs_probabilities = true;
  float decay() const noexcept { return 1.0f; }
  std::size_t tail_rows() const noexcept { return 0; }
  double weight(std::size_t) const noexcept { return 1.0; }
  float importance(float score, std::size_t) const noexcept { return score; }
  float merged(float a, float b) const noexcept { return a > b ? a : b; }
};
struct NoNeeds {
  float decay() const;
  std::size_t tail_rows() const;
  double weight(std::size_t) const;
  float importance(float, std::size_t) const;
  float merged(float, float) const;
};
struct NoDecay : MinimalScore {
  float decay() const = delete;
};
struct NoTailRows : MinimalScore {
  std::size_t tail_rows() const = delete;
};
struct NoWeight : MinimalScore {
  double weight(std::size_t) const = delete;
};
struct NoImportance : MinimalScore {
  float importance(float, std::size_t) const = delete;
};
struct NoMerged : MinimalScore {
  float merged(float, float) const = delete;
};
struct ChangingImportance : MinimalScore {
  float importance(float, std::size_t);  // not const
};
static_assert(Score<MinimalScore> && Score<DecayedAttention> && Score<NoScore>);
static_assert(!Score<NoNeeds> && !Score<NoDecay> && !Score<NoTailRows> && !Score<NoWeight>);
static_assert(!Score<NoImportance> && !Score<NoMerged> && !Score<ChangingImportance> && !Score<int>);

// ---- budgets

struct MinimalBudget {
  static constexpr bool needs_importance = false;
  std::vector<std::size_t> capacities(const BudgetQuery& query) const {
    std::vector<std::size_t> all(query.kv_heads);
    for (std::size_t h = 0; h < all.size(); ++h) all[h] = 20 + h;
    return all;
  }
};
struct NoImportanceNeed {
  std::vector<std::size_t> capacities(const BudgetQuery&) const;
};
struct WrongAnswer {
  static constexpr bool needs_importance = false;
  std::size_t capacities(const BudgetQuery&) const;
};
struct ChangingBudget {
  static constexpr bool needs_importance = false;
  std::vector<std::size_t> capacities(const BudgetQuery&);
};
static_assert(Budget<MinimalBudget> && Budget<Unlimited> && Budget<UniformBudget> && Budget<AdaptiveBudget>);
static_assert(Budget<ProfileBudget> && Budget<AnyBudget>);
static_assert(!Budget<NoImportanceNeed> && !Budget<WrongAnswer> && !Budget<ChangingBudget> &&
              !Budget<MinimalScore>);

// ---- merges

struct MinimalMerge {
  bool keeps_mass() const noexcept { return false; }
  std::size_t residuals(std::size_t) const noexcept { return 0; }
  template <class H, class S>
  void fold(H&, std::size_t, std::size_t, std::size_t, const S&) const noexcept {}
  template <class H, class S>
  void fold_group(const H&, std::span<const std::size_t>, H&, std::size_t, const S&) const noexcept {}
};
struct NoMass : MinimalMerge {
  bool keeps_mass() const = delete;
};
struct NoResiduals : MinimalMerge {
  std::size_t residuals(std::size_t) const = delete;
};
struct NoFold : MinimalMerge {
  template <class H, class S>
  void fold(H&, std::size_t, std::size_t, std::size_t, const S&) const = delete;
};
struct NoFoldGroup : MinimalMerge {
  template <class H, class S>
  void fold_group(const H&, std::span<const std::size_t>, H&, std::size_t, const S&) const = delete;
};
static_assert(Merge<MinimalMerge> && Merge<DropMerge> && Merge<ResidualMerge> && Merge<AnyMerge>);
static_assert(!Merge<NoMass> && !Merge<NoResiduals> && !Merge<NoFold> && !Merge<NoFoldGroup> &&
              !Merge<MinimalBudget>);

// ---- compositions

template <class S, class B, class M>
concept Composes = requires {
  typename Policy<S, B, M>;
};
static_assert(Composes<MinimalScore, MinimalBudget, MinimalMerge>);
static_assert(!Composes<NoDecay, MinimalBudget, MinimalMerge>);
static_assert(!Composes<MinimalScore, WrongAnswer, MinimalMerge>);
static_assert(!Composes<MinimalScore, MinimalBudget, NoFold>);
// Entries without scores cannot be ranked, so they can only all be kept.
static_assert(Composes<NoScore, Unlimited, DropMerge>);
static_assert(!Composes<NoScore, MinimalBudget, DropMerge> &&
              !Composes<NoScore, UniformBudget, ResidualMerge>);

TEST(Policy, MinimalModelsOfEveryConceptMakeAWorkingCache) {
  const Geometry g{.query_heads = 4, .kv_heads = 2, .head_dim = 8};
  const test::Tokens t(g, 80, 1);
  KvCache<Policy<MinimalScore, MinimalBudget, MinimalMerge, float>> cache(g, {{}, {}, {}, {}, false});
  (void)test::run(cache.layer(0), t, 60);
  EXPECT_EQ(cache.layer(0).head(0).size(), 20u);
  EXPECT_EQ(cache.layer(0).head(1).size(), 21u);
  EXPECT_EQ(cache.layer(0).head(0).mass(), nullptr);  // not asked for, not paid for
}

TEST(Policy, FieldsAreWhatScoreAndMergeNeed) {
  EXPECT_TRUE((ZeroMerge<>{}.fields().score));
  EXPECT_TRUE((ZeroMerge<>{}.fields().mass));
  EXPECT_FALSE((Full<>{}.fields().score));
  EXPECT_FALSE((Full<>{}.fields().mass));
}

TEST(Policy, AHeadIsDividedIntoSinksResidualRecentAndTheRest) {
  const auto p = test::policy("budget=100,tail=40%,sinks=4,residual=10%");
  const Division d = divide(p, 100);
  EXPECT_EQ(d.capacity, 100u);
  EXPECT_EQ(d.sinks, 4u);
  EXPECT_EQ(d.recent, 40u);
  EXPECT_EQ(d.residual, 6u);  // of what the recent ones leave
  EXPECT_EQ(divide(p, kUnlimited).capacity, kUnlimited);
  EXPECT_EQ(divide(test::policy("budget=100,tail=0"), 100).recent, 2u);  // at least two
}

TEST(Policy, ACapacityWithoutRoomForACandidateIsRefusedWithTheNumbers) {
  const auto p = test::policy("budget=100,tail=10,sinks=4,residual=3");
  EXPECT_EQ(divide(p, 18).residual, 3u);
  try {
    (void)divide(p, 17);
    FAIL();
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("17 entries per head are too few for 4 sinks, 10 recent and 3 residual"),
              std::string::npos)
        << text;
  }
}

TEST(Policy, TheNeededCapacityIsTheLeastThatDivides) {
  for (const char* settings : {"tail=10,sinks=4,residual=3", "tail=40%", "tail=90%,residual=30%",
                               "tail=0,sinks=0,merge=drop", "tail=50%,sinks=100,residual=50%"}) {
    const auto p = test::policy(std::string("budget=5%,") + settings);
    const std::size_t needed = needed_capacity(p);
    EXPECT_NO_THROW((void)divide(p, needed)) << settings;
    EXPECT_THROW((void)divide(p, needed - 1), Error) << settings;
    // Every larger one divides as well, which the search relies on.
    for (std::size_t capacity = needed; capacity < needed + 300; ++capacity)
      EXPECT_TRUE(division_of(p, capacity).possible()) << settings << " " << capacity;
  }
}

}  // namespace
}  // namespace zeromerge
