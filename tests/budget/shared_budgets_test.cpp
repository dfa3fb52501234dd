#include "zeromerge/budget/shared_budgets.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <string>
#include <tuple>
#include <vector>

#include "support/random.hpp"
#include "zeromerge/budget/budgets.hpp"

namespace zeromerge {
namespace {

using Values = std::vector<std::vector<float>>;

std::size_t sum(const std::vector<std::size_t>& x) {
  return std::accumulate(x.begin(), x.end(), std::size_t{0});
}

// A prompt of a model of this shape, of which every head has ranked the entries that the first stage leaves.
struct Shape {
  std::size_t layers, kv_heads, tokens, mean, beside;
  double first;

  static Shape random(test::Random& random) {
    Shape s{random.between(1, 6),  random.between(1, 4), random.between(60, 300), 0,
            random.between(5, 20), random.uniform()};
    s.mean = random.between(s.beside, s.tokens - 1);
    return s;
  }
  std::size_t heads() const { return layers * kv_heads; }
  TwoStageBudget two_stage() const { return {count(mean), first}; }
  BudgetQuery query() const {
    return {.layers = layers, .kv_heads = kv_heads, .tokens = tokens, .needed = beside, .beside = beside};
  }
  Values values(test::Random& random) const {
    Values all(heads());
    for (auto& head : all) head = test::normals(random, tokens - two_stage().filling(query()).first);
    return all;
  }
  std::string text() const {
    return std::to_string(layers) + " layers, " + std::to_string(kv_heads) + " heads, " +
           std::to_string(tokens) + " tokens, mean " + std::to_string(mean) + ", first " +
           std::to_string(first) + ", beside " + std::to_string(beside);
  }
};

std::vector<std::size_t> joint(const Shape& shape, const Values& values) {
  BudgetQuery query = shape.query();
  query.importance = values;
  return shape.two_stage().capacities(query);
}

// As the layers end their prompts one after another. No layer's answer may depend on those after it.
std::vector<std::size_t> layer_by_layer(const Shape& shape, const Values& values) {
  BudgetProgress progress{.layers = shape.layers};
  const std::size_t total = shape.heads() * (shape.mean - shape.two_stage().filling(shape.query()).first);
  std::vector<std::size_t> all;
  for (std::size_t l = 0; l < shape.layers; ++l) {
    const Values own(values.begin() + static_cast<std::ptrdiff_t>(l * shape.kv_heads),
                     values.begin() + static_cast<std::ptrdiff_t>((l + 1) * shape.kv_heads));
    BudgetQuery query = shape.query();
    query.layer = l;
    query.layers = 1;
    query.importance = own;
    query.progress = &progress;
    const auto capacities = shape.two_stage().capacities(query);
    EXPECT_EQ(capacities.size(), shape.kv_heads);
    EXPECT_LE(progress.best.size(), total) << "values that can matter no more are kept: " << shape.text();
    all.insert(all.end(), capacities.begin(), capacities.end());
  }
  return all;
}

// The total best values of all heads, by sorting; ties to the lower head.
std::vector<std::size_t> ranked(const Values& values, std::size_t total, std::size_t first) {
  std::vector<std::tuple<float, std::size_t>> all;
  for (std::size_t h = 0; h < values.size(); ++h)
    for (const float x : values[h]) all.emplace_back(-x, h);
  std::sort(all.begin(), all.end());
  std::vector<std::size_t> capacities(values.size(), first);
  for (std::size_t i = 0; i < std::min(total, all.size()); ++i) ++capacities[std::get<1>(all[i])];
  return capacities;
}

TEST(TwoStage, SharesOutTheTotalToTheHighestRanked) {
  test::Random random(1);
  for (int i = 0; i < 300; ++i) {
    const Shape shape = Shape::random(random);
    Values values = shape.values(random);
    if (i % 3 == 0)  // ties
      for (auto& head : values)
        for (float& x : head) x = std::round(x);
    const auto capacities = joint(shape, values);
    const std::size_t first = shape.two_stage().filling(shape.query()).first;
    ASSERT_EQ(sum(capacities), shape.heads() * shape.mean) << shape.text();
    ASSERT_EQ(capacities, ranked(values, shape.heads() * (shape.mean - first), first)) << shape.text();
  }
}

TEST(TwoStage, TheFirstStageIsAShareThatHoldsWhatIsExempt) {
  const BudgetQuery query{.tokens = 1000, .least = 32, .needed = 25, .beside = 25};
  const auto first = [&](Amount amount, double share_of_it) {
    return TwoStageBudget{amount, share_of_it}.filling(query).first;
  };
  EXPECT_EQ(first(count(200), 0.3), 60u);
  EXPECT_EQ(first(share(0.2), 0.3), 60u);
  EXPECT_EQ(first(count(200), 0.0), 32u);
  EXPECT_EQ(first(count(200), 1.0), 200u);
  EXPECT_EQ(first(count(28), 0.3), 28u);
  EXPECT_EQ((TwoStageBudget{share(0.01), 0.3}.filling(query).mean), 32u) << "a share is lifted to least";
}

TEST(TwoStage, TheFirstStageHoldsWhatIsLocalUpToSixTenthsOfTheMean) {
  const auto first = [](std::size_t local) {
    return TwoStageBudget{count(200), 0.3}.filling({.tokens = 4000, .local = local, .beside = 25}).first;
  };
  EXPECT_EQ(first(59), 60u);
  EXPECT_EQ(first(80), 80u);
  EXPECT_EQ(first(120), 120u);
  EXPECT_EQ(first(121), 120u);
}

TEST(TwoStage, WithoutRatingsGivesWhatTheFirstStageNeeds) {
  const Shape shape{3, 2, 100, 50, 10, 0.4};
  EXPECT_EQ(joint(shape, {}), std::vector<std::size_t>(6, 20));
}

TEST(TwoStage, TiesGoToTheLowerHead) {
  const Shape shape{2, 2, 100, 40, 10, 0.25};  // 30 a head to rank, 90 in each
  EXPECT_EQ(joint(shape, Values(4, std::vector<float>(90, 0.5f))),
            (std::vector<std::size_t>{100, 40, 10, 10}));
}

TEST(TwoStage, WhereEverythingFitsHeadsGrowToTheMean) {
  for (const std::size_t tokens : {5u, 30u, 79u, 80u}) {
    const Shape shape{3, 2, tokens, 80, 10, 0.5};
    const Values values(6, std::vector<float>(tokens > 40 ? tokens - 40 : 0, 1.0f));
    EXPECT_EQ(joint(shape, values), std::vector<std::size_t>(6, 80)) << tokens << " tokens";
    EXPECT_EQ(layer_by_layer(shape, values), std::vector<std::size_t>(6, 80)) << tokens << " tokens";
  }
}

// After an earlier prompt heads are of different lengths: one longer than the mean loses nothing while the
// others leave it the room.
TEST(TwoStage, WhereEverythingFitsALongHeadStaysWhole) {
  const Shape shape{2, 2, 300, 100, 10, 0.2};  // 80 a head beside the 20 of the first stage
  Values values;
  for (const std::size_t n : {230u, 30u, 5u, 0u}) values.emplace_back(n, 1.0f);
  const auto capacities = joint(shape, values);
  EXPECT_EQ(sum(capacities), 400u);
  for (std::size_t h = 0; h < 4; ++h) EXPECT_GE(capacities[h], 20 + values[h].size()) << "head " << h;
}

TEST(TwoStage, LayerByLayerTheTotalIsExact) {
  test::Random random(2);
  for (int i = 0; i < 300; ++i) {
    const Shape shape = Shape::random(random);
    Values values = shape.values(random);
    for (std::size_t h = 0; h < values.size(); ++h)  // layers of any weight
      for (float& x : values[h]) x += static_cast<float>(h / shape.kv_heads * (random.next() % 3));
    const auto capacities = layer_by_layer(shape, values);
    ASSERT_EQ(sum(capacities), shape.heads() * shape.mean) << shape.text();
    for (const std::size_t c : capacities) ASSERT_LE(c, shape.tokens) << shape.text();
  }
}

TEST(TwoStage, LayersThatAreAlikeGetTheSameOneByOne) {
  test::Random random(3);
  for (int i = 0; i < 100; ++i) {
    const Shape shape = Shape::random(random);
    const Values values = shape.values(random);
    Values alike;
    for (std::size_t l = 0; l < shape.layers; ++l)
      alike.insert(alike.end(), values.begin(), values.begin() + static_cast<std::ptrdiff_t>(shape.kv_heads));
    ASSERT_EQ(layer_by_layer(shape, alike), joint(shape, alike)) << shape.text();
  }
}

TEST(TwoStage, LayersOfOneDistributionGetNearlyTheSameOneByOne) {
  test::Random random(4);
  const Shape shape{12, 4, 500, 60, 15, 0.3};
  const Values values = shape.values(random);
  const auto together = joint(shape, values);
  const auto apart = layer_by_layer(shape, values);
  for (std::size_t l = 0; l < shape.layers; ++l) {
    const auto of_layer = [&](const std::vector<std::size_t>& all) {
      const auto from = all.begin() + static_cast<std::ptrdiff_t>(l * shape.kv_heads);
      return static_cast<double>(std::accumulate(from, from + 4, std::size_t{0}));
    };
    EXPECT_NEAR(of_layer(apart), of_layer(together), 0.2 * 4 * 60) << "layer " << l;
  }
}

// ---- pyramid

TEST(Pyramid, TheTotalIsExactAndFallsFromLayerToLayer) {
  test::Random random(5);
  for (int i = 0; i < 200; ++i) {
    Shape shape = Shape::random(random);
    const PyramidBudget budget{count(shape.mean), 1.0 + 30.0 * random.uniform()};
    const auto all = budget.capacities(shape.query());
    ASSERT_EQ(all.size(), shape.heads());
    ASSERT_EQ(sum(all), shape.heads() * shape.mean) << shape.text();
    for (std::size_t h = 0; h < all.size(); ++h) {
      ASSERT_GE(all[h], shape.beside);
      ASSERT_LE(all[h], shape.tokens);
      ASSERT_TRUE(h < shape.kv_heads || all[h] <= all[h - shape.kv_heads] + 1) << shape.text();
    }
    BudgetProgress progress{.layers = shape.layers};
    std::vector<std::size_t> apart;
    for (std::size_t l = 0; l < shape.layers; ++l) {
      BudgetQuery query = shape.query();
      query.layers = 1;
      query.layer = l;
      query.progress = &progress;
      const auto own = budget.capacities(query);
      apart.insert(apart.end(), own.begin(), own.end());
    }
    ASSERT_EQ(apart, all) << "layer by layer: " << shape.text();
  }
}

TEST(Pyramid, EndsAreTwiceTheMeanLessABetaAndABeta) {
  const BudgetQuery query{.layers = 9, .kv_heads = 2, .tokens = 5000, .needed = 37, .beside = 37};
  const auto all = PyramidBudget{count(437), 20.0}.capacities(query);
  for (std::size_t l = 0; l < 9; ++l)
    for (std::size_t h = 0; h < 2; ++h)
      EXPECT_EQ(all[2 * l + h], 37 + 780 - l * 95) << "layer " << l;  // 400 * 1.95, in 8 steps to 400 / 20
}

TEST(Pyramid, NoLayerGetsMoreThanThereIsAndTheOthersGetTheRest) {
  const BudgetQuery query{.layers = 4, .kv_heads = 1, .tokens = 100, .needed = 10, .beside = 10};
  const auto all = PyramidBudget{count(80), 20.0}.capacities(query);
  EXPECT_EQ(sum(all), 320u);
  EXPECT_EQ(all[0], 100u);
  const auto fits = PyramidBudget{count(100), 20.0}.capacities(query);
  EXPECT_EQ(fits, std::vector<std::size_t>(4, 100));
}

TEST(SharedBudgets, AskedAtRunTimeSayThatTheyNeedAllLayers) {
  EXPECT_TRUE(needs_all_layers(AnyBudget{TwoStageBudget{count(50)}}));
  EXPECT_TRUE(needs_all_layers(AnyBudget{PyramidBudget{count(50)}}));
  EXPECT_FALSE(needs_all_layers(AnyBudget{UniformBudget{count(50)}}));
  EXPECT_FALSE(needs_all_layers(AnyBudget{ErrorBudget{count(50)}}));
  const BudgetQuery query{.tokens = 100, .beside = 10};
  EXPECT_TRUE(filling_of(AnyBudget{TwoStageBudget{count(50)}}, query).has_value());
  EXPECT_FALSE(filling_of(AnyBudget{PyramidBudget{count(50)}}, query).has_value());
  EXPECT_EQ(mean_of(AnyBudget{PyramidBudget{count(50)}}, query), 50u);
}

}  // namespace
}  // namespace zeromerge
