#include "zeromerge/budget/budgets.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "support/head_profile.hpp"
#include "support/random.hpp"

namespace zeromerge {
namespace {

using test::head_profile;
using Capacities = std::vector<std::size_t>;
using Importance = std::vector<std::vector<float>>;

std::size_t sum(const Capacities& c) { return std::accumulate(c.begin(), c.end(), std::size_t{0}); }

TEST(Unlimited, NoHeadHasALimit) {
  EXPECT_EQ(Unlimited{}.capacities({.kv_heads = 2, .tokens = 10}), (Capacities{kUnlimited, kUnlimited}));
}

TEST(UniformBudget, EveryHeadGetsTheShareOrTheCount) {
  EXPECT_EQ(UniformBudget{share(0.05)}.capacities({.kv_heads = 3, .tokens = 1000}), (Capacities{50, 50, 50}));
  EXPECT_EQ(UniformBudget{count(410)}.capacities({.kv_heads = 2, .tokens = 7}), (Capacities{410, 410}));
}

TEST(UniformBudget, TheLeastLiftsAShareButNotACount) {
  EXPECT_EQ(UniformBudget{share(0.05)}.capacities({.kv_heads = 2, .tokens = 100, .least = 32}),
            (Capacities{32, 32}));
  EXPECT_EQ(UniformBudget{count(20)}.capacities({.kv_heads = 2, .tokens = 100, .least = 32}),
            (Capacities{20, 20}));
}

TEST(AdaptiveBudget, HeadsGetWhatTheirEntriesWin) {
  // Of the best 4 of 8 entries three are in head 0 and one is in head 1.
  const Importance importance = {{9, 8, 7, 1}, {6, 0, 0, 0}};
  EXPECT_EQ(
      (AdaptiveBudget{count(2), 0.0}.capacities({.kv_heads = 2, .tokens = 4, .importance = importance})),
      (Capacities{3, 1}));
  // Half of the uniform capacity is not competed for: 0.5 * 2 + 0.5 * {3, 1}.
  const Importance wider = {{9, 8, 7, 5, 4, 4}, {6, 5, 0, 0, 0, 0}};
  EXPECT_EQ((AdaptiveBudget{count(4), 0.5}.capacities({.kv_heads = 2, .tokens = 6, .importance = wider})),
            (Capacities{5, 3}));
}

TEST(AdaptiveBudget, TiesGoToTheLowerHead) {
  const Importance importance = {{1, 1, 1}, {1, 1, 1}};
  EXPECT_EQ(
      (AdaptiveBudget{count(2), 0.0}.capacities({.kv_heads = 2, .tokens = 3, .importance = importance})),
      (Capacities{3, 1}));
}

TEST(AdaptiveBudget, TheLayersTotalIsExactAndFloorsAndCapsHold) {
  test::Random random(17);
  for (int round = 0; round < 400; ++round) {
    const std::size_t heads = random.between(1, 12);
    const std::size_t tokens = random.between(1, 300);
    Importance importance(heads);
    for (auto& row : importance) {
      const double scale = std::exp(3.0 * random.normal());
      for (std::size_t j = 0; j < tokens; ++j) row.push_back(static_cast<float>(scale * random.uniform()));
    }
    const Amount amount = round % 2 == 0 ? share(random.uniform()) : count(random.between(1, 400));
    const double floor = random.uniform();
    const std::size_t least = random.between(0, 40);
    const std::size_t needed = random.between(0, 40);
    const std::size_t local = random.between(0, 200);
    const BudgetQuery query{.kv_heads = heads,
                            .tokens = tokens,
                            .least = least,
                            .needed = needed,
                            .local = local,
                            .importance = importance};
    const Capacities c = AdaptiveBudget{amount, floor}.capacities(query);
    const Capacities uniform = UniformBudget{amount}.capacities(query);
    ASSERT_EQ(c.size(), heads);
    ASSERT_EQ(sum(c), sum(uniform)) << "round " << round;
    const std::size_t mean = uniform[0];
    for (const std::size_t x : c) {
      ASSERT_GE(x, std::min(std::max(least, needed), mean));
      ASSERT_GE(x, static_cast<std::size_t>(floor * static_cast<double>(mean)));
      ASSERT_GE(x, std::min(local, static_cast<std::size_t>(0.6 * static_cast<double>(mean))));
      ASSERT_LE(x, std::max(mean, tokens));
    }
  }
}

TEST(ProfileBudget, SharesOfALayerAreCutFromTheWholeTable) {
  const ProfileBudget budget{share(0.1), head_profile("budget 0.1 1 3 2 2", 2, 2), 0.0};
  EXPECT_EQ(budget.capacities({.layer = 0, .kv_heads = 2, .tokens = 1000}), (Capacities{50, 150}));
  EXPECT_EQ(budget.capacities({.layer = 1, .kv_heads = 2, .tokens = 1000}), (Capacities{100, 100}));
}

TEST(ProfileBudget, TheLevelFollowsTheShareThatIsKept) {
  const auto table = head_profile("budget 0.1 1 3 budget 0.3 3 1", 1, 2);
  const auto at = [&](Amount amount) {
    return ProfileBudget{amount, table, 0.0}.capacities({.kv_heads = 2, .tokens = 1000});
  };
  EXPECT_EQ(at(share(0.1)), (Capacities{50, 150}));
  EXPECT_EQ(at(share(0.2)), (Capacities{200, 200}));  // halfway
  EXPECT_EQ(at(count(300)), (Capacities{450, 150}));
}

TEST(ProfileBudget, AFloorIsAShareOfTheUniformCapacityAndNoHeadExceedsThePrompt) {
  const ProfileBudget budget{share(0.5), head_profile("budget 0.5 0 1 7", 1, 3), 0.25};
  const Capacities c = budget.capacities({.kv_heads = 3, .tokens = 100});
  EXPECT_EQ(sum(c), 150u);
  EXPECT_EQ(c[0], 12u);
  EXPECT_EQ(c[2], 100u);
}

TEST(ProfileBudget, EveryHeadHasWhatIsLocalUpToSixTenthsOfTheMean) {
  const ProfileBudget budget{count(100), head_profile("budget 0.5 0 1 7", 1, 3), 0.25};
  const auto lowest = [&](std::size_t local) {
    return budget.capacities({.kv_heads = 3, .tokens = 1000, .local = local})[0];
  };
  EXPECT_EQ(lowest(0), 25u);
  EXPECT_EQ(lowest(40), 40u);
  EXPECT_EQ(lowest(60), 60u);
  EXPECT_EQ(lowest(90), 60u);
}

TEST(ProfileBudget, TheTotalOverAllLayersIsExact) {
  test::Random random(23);
  for (int round = 0; round < 200; ++round) {
    const std::size_t layers = random.between(1, 8);
    const std::size_t heads = random.between(1, 6);
    std::string level = "budget 0.1";
    for (std::size_t i = 0; i < layers * heads; ++i) level += " " + std::to_string(random.uniform() + 1e-3);
    const ProfileBudget budget{
        round % 2 == 0 ? share(0.01 + 0.5 * random.uniform()) : count(random.between(1, 300)),
        head_profile(level, layers, heads), random.uniform()};
    const std::size_t tokens = random.between(50, 2000);
    const std::size_t least = random.between(0, 40);
    std::size_t total = 0;
    std::size_t uniform = 0;
    for (std::size_t layer = 0; layer < layers; ++layer) {
      const BudgetQuery query{
          .layer = layer, .kv_heads = heads, .tokens = tokens, .least = least, .needed = 10};
      for (const std::size_t c : budget.capacities(query)) {
        ASSERT_LE(c, std::max(tokens, budget.amount.of(tokens)));
        total += c;
      }
      uniform += sum(UniformBudget{budget.amount}.capacities(query));
    }
    ASSERT_EQ(total, uniform) << "round " << round;
  }
}

TEST(ProfileBudget, AnotherModelsShapeIsRefusedWithBothShapes) {
  const ProfileBudget budget{share(0.1), head_profile("budget 0.1 1 3 2 2", 2, 2), 0.0};
  EXPECT_THROW(budget.capacities({.layer = 2, .kv_heads = 2, .tokens = 10}), Error);
  EXPECT_THROW(budget.capacities({.layer = 0, .kv_heads = 3, .tokens = 10}), Error);
}

TEST(AnyBudget, AnswersAsTheChosenOne) {
  const Importance importance = {{9, 8, 7, 1}, {6, 0, 0, 0}};
  const BudgetQuery query{.kv_heads = 2, .tokens = 4, .importance = importance};
  EXPECT_EQ(AnyBudget{Unlimited{}}.capacities(query), Unlimited{}.capacities(query));
  EXPECT_EQ(AnyBudget{UniformBudget{count(2)}}.capacities(query), (Capacities{2, 2}));
  EXPECT_EQ((AnyBudget{AdaptiveBudget{count(2), 0.0}}.capacities(query)), (Capacities{3, 1}));
}

}  // namespace
}  // namespace zeromerge
