#include "zeromerge/budget/shared_budgets.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "support/head_profile.hpp"
#include "support/random.hpp"
#include "support/refusal.hpp"
#include "zeromerge/budget/budgets.hpp"

namespace zeromerge {
namespace {

using test::head_profile;
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
  std::size_t first_stage() const { return two_stage().fillings(query())[0].first; }
  BudgetQuery query() const {
    return {.layers = layers, .kv_heads = kv_heads, .tokens = tokens, .needed = beside, .beside = beside};
  }
  Values values(test::Random& random) const {
    Values all(heads());
    for (auto& head : all) head = test::normals(random, tokens - first_stage());
    return all;
  }
  std::string text() const {
    return std::to_string(layers) + " layers, " + std::to_string(kv_heads) + " heads, " +
           std::to_string(tokens) + " tokens, mean " + std::to_string(mean) + ", first " +
           std::to_string(first) + ", beside " + std::to_string(beside);
  }
};

std::vector<std::size_t> joint(const TwoStageBudget& budget, const Shape& shape, const Values& values) {
  BudgetQuery query = shape.query();
  query.importance = values;
  return budget.capacities(query);
}
std::vector<std::size_t> joint(const Shape& shape, const Values& values) {
  return joint(shape.two_stage(), shape, values);
}

// What the budget is told when a layer of `heads` ends its prompt: by a cache.
struct Ended {
  std::vector<std::size_t> heads;  // [layers]
  std::vector<std::ptrdiff_t> spent;
  std::vector<char> there;
  Values best;

  explicit Ended(std::vector<std::size_t> kv_heads)
      : heads(std::move(kv_heads)), spent(heads.size()), there(heads.size()), best(heads.size()) {}
  BudgetProgress progress(std::size_t layer) const {
    BudgetProgress p{.kv_heads = heads, .asked = {layer}};
    for (std::size_t l = 0; l < heads.size(); ++l) {
      if (l == layer || !there[l]) continue;
      p.ended += heads[l];
      p.known += heads[l];
      p.spent += spent[l];
      p.best.insert(p.best.end(), best[l].begin(), best[l].end());
    }
    return p;
  }
};

// As the layers end their prompts one after another, in this order. No layer's answer may depend on those
// after it.
std::vector<std::size_t> layer_by_layer(const TwoStageBudget& budget, const Shape& shape,
                                        const Values& values, const std::vector<std::size_t>& order) {
  Ended ended(std::vector<std::size_t>(shape.layers, shape.kv_heads));
  std::vector<std::size_t> all(shape.heads());
  for (const std::size_t l : order) {
    const auto from = static_cast<std::ptrdiff_t>(l * shape.kv_heads);
    const Values own(values.begin() + from,
                     values.begin() + from + static_cast<std::ptrdiff_t>(shape.kv_heads));
    BudgetQuery query = shape.query();
    query.layer = l;
    query.layers = 1;
    query.importance = own;
    const BudgetProgress progress = ended.progress(l);
    query.progress = &progress;
    const auto capacities = budget.capacities(query);
    EXPECT_EQ(capacities.size(), shape.kv_heads);
    std::copy(capacities.begin(), capacities.end(), all.begin() + from);
    ended.there[l] = 1;
    ended.spent[l] = static_cast<std::ptrdiff_t>(sum(capacities));
    for (const Filling& filling : budget.fillings(query))
      ended.spent[l] -= static_cast<std::ptrdiff_t>(filling.first);
    for (const auto& head : own) ended.best[l].insert(ended.best[l].end(), head.begin(), head.end());
  }
  return all;
}
std::vector<std::size_t> layer_by_layer(const TwoStageBudget& budget, const Shape& shape,
                                        const Values& values) {
  std::vector<std::size_t> order(shape.layers);
  std::iota(order.begin(), order.end(), std::size_t{0});
  return layer_by_layer(budget, shape, values, order);
}

std::vector<std::size_t> layer_by_layer(const Shape& shape, const Values& values) {
  return layer_by_layer(shape.two_stage(), shape, values);
}

// The total best values of all heads beside `first`, by sorting; ties to the lower head.
std::vector<std::size_t> ranked(const Values& values, std::size_t total,
                                std::vector<std::size_t> capacities) {
  std::vector<std::tuple<float, std::size_t>> all;
  for (std::size_t h = 0; h < values.size(); ++h)
    for (const float x : values[h]) all.emplace_back(-x, h);
  std::sort(all.begin(), all.end());
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
    const std::size_t first = shape.first_stage();
    ASSERT_EQ(sum(capacities), shape.heads() * shape.mean) << shape.text();
    const std::vector<std::size_t> firsts(shape.heads(), first);
    ASSERT_EQ(capacities, ranked(values, shape.heads() * (shape.mean - first), firsts)) << shape.text();
  }
}

TEST(TwoStage, TheFirstStageIsAShareThatHoldsWhatIsExempt) {
  const BudgetQuery query{.tokens = 1000, .least = 32, .needed = 25, .beside = 25};
  const auto first = [&](Amount amount, double share_of_it) {
    return TwoStageBudget{amount, share_of_it}.fillings(query)[0].first;
  };
  EXPECT_EQ(first(count(200), 0.3), 60u);
  EXPECT_EQ(first(share(0.2), 0.3), 60u);
  EXPECT_EQ(first(count(200), 0.0), 32u);
  EXPECT_EQ(first(count(200), 1.0), 200u);
  EXPECT_EQ(first(count(28), 0.3), 28u);
  EXPECT_EQ((TwoStageBudget{share(0.01), 0.3}.fillings(query)[0].mean), 32u) << "a share is lifted to least";
}

TEST(TwoStage, TheFirstStageHoldsWhatIsLocalUpToSixTenthsOfTheMean) {
  const auto first = [](std::size_t local) {
    const BudgetQuery query{.tokens = 4000, .local = local, .beside = 25};
    return TwoStageBudget{count(200), 0.3}.fillings(query)[0].first;
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

TEST(TwoStage, LayerByLayerTheTotalIsExactInAnyOrder) {
  test::Random random(2);
  for (int i = 0; i < 300; ++i) {
    const Shape shape = Shape::random(random);
    Values values = shape.values(random);
    for (std::size_t h = 0; h < values.size(); ++h)  // layers of any weight
      for (float& x : values[h]) x += static_cast<float>(h / shape.kv_heads * (random.next() % 3));
    std::vector<std::size_t> order(shape.layers);
    std::iota(order.begin(), order.end(), std::size_t{0});
    for (std::size_t l = shape.layers; i % 2 == 1 && l > 1; --l)
      std::swap(order[l - 1], order[random.next() % l]);
    const auto capacities = layer_by_layer(shape.two_stage(), shape, values, order);
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

// ---- layers of different shape

TEST(TwoStage, HeadsOfLayersThatDifferAreAllCounted) {
  const std::vector<std::size_t> heads = {3, 5, 1};
  const Values values(9, std::vector<float>(90, 0.5f));
  BudgetQuery query{.layers = 3, .each = heads, .tokens = 100, .needed = 10, .beside = 10};
  query.importance = values;
  const auto all = TwoStageBudget{count(40), 0.25}.capacities(query);
  ASSERT_EQ(all.size(), 9u);
  EXPECT_EQ(sum(all), 9u * 40u);
  Ended ended(heads);
  std::size_t total = 0;
  for (const std::size_t l : {2u, 0u, 1u}) {
    const Values own(heads[l], std::vector<float>(90, 0.5f));
    const BudgetProgress progress = ended.progress(l);
    const BudgetQuery one{.layer = l,
                          .kv_heads = heads[l],
                          .tokens = 100,
                          .needed = 10,
                          .beside = 10,
                          .importance = own,
                          .progress = &progress};
    const std::size_t got = sum(TwoStageBudget{count(40), 0.25}.capacities(one));
    total += got;
    ended.there[l] = 1;
    ended.spent[l] = static_cast<std::ptrdiff_t>(got) - static_cast<std::ptrdiff_t>(10 * heads[l]);
  }
  EXPECT_EQ(total, 9u * 40u);
}

TEST(Pyramid, HeadsOfLayersThatDifferAreAllCounted) {
  for (const auto& heads : {std::vector<std::size_t>{3, 5}, std::vector<std::size_t>{5, 3}}) {
    const BudgetQuery query{.layers = 2, .each = heads, .tokens = 1000, .needed = 10, .beside = 10};
    const auto all = PyramidBudget{count(100), 20.0}.capacities(query);
    ASSERT_EQ(all.size(), 8u);
    EXPECT_EQ(sum(all), 800u);
    for (std::size_t l = 0; l < 2; ++l) {
      const BudgetProgress progress{.kv_heads = heads, .asked = {l}};
      const auto own = PyramidBudget{count(100), 20.0}.capacities({.layer = l,
                                                                   .kv_heads = heads[l],
                                                                   .tokens = 1000,
                                                                   .needed = 10,
                                                                   .beside = 10,
                                                                   .progress = &progress});
      const auto from = all.begin() + static_cast<std::ptrdiff_t>(l * heads[0]);
      EXPECT_EQ(own, std::vector<std::size_t>(from, from + static_cast<std::ptrdiff_t>(heads[l])));
    }
  }
}

// ---- two stages, the first by a profile

TwoStageBudget by_profile(const Shape& shape, test::Random& random) {
  TwoStageBudget budget = shape.two_stage();
  std::string level = "budget 0.1";
  for (std::size_t h = 0; h < shape.heads(); ++h) level += " " + std::to_string(random.uniform() + 1e-3);
  budget.profile = head_profile(level, shape.layers, shape.kv_heads);
  budget.floor = budget.first * random.uniform();
  return budget;
}

std::vector<std::size_t> firsts(const TwoStageBudget& budget, const BudgetQuery& query) {
  std::vector<std::size_t> all;
  for (const Filling& f : budget.fillings(query)) all.push_back(f.first);
  return all;
}

Values left_over(const Shape& shape, const std::vector<std::size_t>& firsts, test::Random& random) {
  Values all;
  for (const std::size_t first : firsts)
    all.push_back(test::normals(random, shape.tokens - std::min(shape.tokens, first)));
  return all;
}

TEST(TwoStageByProfile, TheFirstStageIsSharedOutAndTheRestStillGoesToTheHighestRanked) {
  test::Random random(6);
  for (int i = 0; i < 300; ++i) {
    const Shape shape = Shape::random(random);
    const TwoStageBudget budget = by_profile(shape, random);
    const auto stage = firsts(budget, shape.query());
    ASSERT_EQ(sum(stage), shape.heads() * shape.first_stage()) << "as without a profile: " << shape.text();
    for (const std::size_t first : stage) {
      ASSERT_GE(first, shape.beside) << shape.text();
      ASSERT_GE(first, static_cast<std::size_t>(budget.floor * static_cast<double>(shape.mean)));
      ASSERT_LE(first, shape.tokens) << shape.text();
    }
    const Values values = left_over(shape, stage, random);
    const auto capacities = joint(budget, shape, values);
    ASSERT_EQ(sum(capacities), shape.heads() * shape.mean) << shape.text();
    ASSERT_EQ(capacities, ranked(values, shape.heads() * (shape.mean - shape.first_stage()), stage))
        << shape.text();
    ASSERT_EQ(sum(layer_by_layer(budget, shape, values)), shape.heads() * shape.mean) << shape.text();
  }
}

TEST(TwoStageByProfile, HeadsHaveTheTablesSharesAboveTheFloor) {
  const BudgetQuery query{.layers = 2, .kv_heads = 2, .tokens = 1000, .beside = 10};
  TwoStageBudget budget{count(100), 0.8, head_profile("budget 0.1 1 3 0.1 3.9", 2, 2), 0.0};
  EXPECT_EQ(firsts(budget, query), (std::vector<std::size_t>{39, 118, 10, 153}));
  budget.floor = 0.5;
  EXPECT_EQ(firsts(budget, query), (std::vector<std::size_t>{50, 96, 50, 124}));
  budget.floor = 0.8;
  EXPECT_EQ(firsts(budget, query), std::vector<std::size_t>(4, 80));
}

// An engine may compress some of its layers only, so those asked about need not follow each other.
TEST(TwoStageByProfile, ALayersFirstStageIsTheSameWhoeverIsAskedAboutWithIt) {
  const TwoStageBudget budget{count(100), 0.8, head_profile("budget 0.1 1 2 3 4", 4, 1), 0.2};
  const BudgetQuery all{.layers = 4, .tokens = 1000, .beside = 10};
  const auto every = firsts(budget, all);
  const std::vector<std::size_t> numbers = {0, 1, 3};
  const BudgetQuery some{.layers = 3, .numbers = numbers, .tokens = 1000, .beside = 10};
  EXPECT_EQ(firsts(budget, some), (std::vector<std::size_t>{every[0], every[1], every[3]}));
  for (std::size_t l = 0; l < 4; ++l)
    EXPECT_EQ(firsts(budget, {.layer = l, .tokens = 1000, .beside = 10})[0], every[l]) << "layer " << l;
}

TEST(TwoStageByProfile, AHeadIsKeptWholeUpToItsFirstStageOrWhereThePromptFits) {
  const TwoStageBudget budget{count(100), 0.8, head_profile("budget 0.1 1 3", 2, 1), 0.0};
  const auto whole = [&](std::size_t tokens) {
    std::vector<std::size_t> all;
    for (const Filling& f : budget.fillings({.layers = 2, .tokens = tokens, .beside = 10}))
      all.push_back(f.whole);
    return all;
  };
  EXPECT_EQ(whole(1000), (std::vector<std::size_t>{40, 120}));
  EXPECT_EQ(whole(100), (std::vector<std::size_t>{100, 100}));
}

TEST(TwoStageByProfile, AnotherModelsShapeIsRefusedWithBothShapes) {
  const TwoStageBudget budget{count(100), 0.8, head_profile("budget 0.1 1 3 2 2", 2, 2)};
  const auto refused = [&](const BudgetQuery& query) {
    return test::refusal([&] { (void)budget.capacities(query); });
  };
  EXPECT_TRUE(test::contains(refused({.layers = 3, .kv_heads = 2, .tokens = 500}),
                             "it has 2 layers of 2 kv heads, the cache asks for layer 2 with 2"));
  EXPECT_TRUE(test::contains(refused({.layer = 1, .kv_heads = 3, .tokens = 500}), "layer 1 with 3"));
  const std::vector<std::size_t> numbers = {0, 5};
  EXPECT_TRUE(
      test::contains(refused({.layers = 2, .numbers = numbers, .kv_heads = 2, .tokens = 500}), "layer 5"));
  const std::vector<std::size_t> each = {2, 3};
  EXPECT_TRUE(test::contains(refused({.layers = 2, .each = each, .tokens = 500}), "layer 1 with 3"));
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
    const std::vector<std::size_t> heads(shape.layers, shape.kv_heads);
    std::vector<std::size_t> apart;
    for (std::size_t l = 0; l < shape.layers; ++l) {
      BudgetQuery query = shape.query();
      query.layers = 1;
      query.layer = l;
      const BudgetProgress progress{.kv_heads = heads, .asked = {l}};
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
  EXPECT_EQ(fillings_of(AnyBudget{TwoStageBudget{count(50)}}, query).size(), 1u);
  EXPECT_TRUE(fillings_of(AnyBudget{PyramidBudget{count(50)}}, query).empty());
  EXPECT_EQ(mean_of(AnyBudget{PyramidBudget{count(50)}}, query), 50u);
}

}  // namespace
}  // namespace zeromerge
