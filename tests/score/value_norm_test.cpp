#include "zeromerge/score/value_norm.hpp"

#include <gtest/gtest.h>

#include "support/isa.hpp"
#include "support/prompt_layer.hpp"

namespace zeromerge {
namespace {

using test::PromptLayer;
using test::shape_of;

template <class K>
void check(const PromptLayer<K>& layer) {
  Ratings ratings(layer.g.kv_heads);
  for (std::size_t h = 0; h < ratings.size(); ++h)
    for (std::size_t j = 0; j < layer.size(h); ++j)
      ratings[h].push_back(static_cast<float>(h + 1) / static_cast<float>(j + 1));
  const Ratings before = ratings;
  times_value_norm(layer.view(), ratings);
  for (std::size_t h = 0; h < ratings.size(); ++h) {
    ASSERT_EQ(ratings[h].size(), before[h].size());
    for (std::size_t j = 0; j < ratings[h].size(); ++j) {
      const double want = static_cast<double>(before[h][j]) * layer.value_norm(h, j);
      ASSERT_NEAR(ratings[h][j], want, 1e-5 * want) << "head " << h << " entry " << j;
    }
  }
}

class ValueNormFactor : public test::EachIsa {};

TEST_P(ValueNormFactor, MultipliesEveryImportance) {
  for (const std::size_t head_dim : {5, 64, 80, 128}) check(PromptLayer<>(shape_of(2, 1, head_dim), {33, 0}));
  check(PromptLayer<>(shape_of(3, 1, 64), {.tokens = 50, .queries = 0, .thinned = true}));
  check(PromptLayer<f16>(shape_of(2, 1, 64), {33, 0}));
  check(PromptLayer<q8>(shape_of(2, 1, 64), {33, 0}));
}

TEST(ValueNorm, WhatIsAlwaysKeptStaysSoWithAValueOfZeros) {
  PromptLayer<> layer(shape_of(1, 1, 64), {3, 0});
  const std::vector<float> zeros(64, 0.0f);
  for (const std::size_t j : {0, 1}) layer.heads[0].write_value(j, zeros.data());
  Ratings ratings = {{kAlwaysKept, 1.0f, kAlwaysKept}};
  times_value_norm(layer.view(), ratings);
  EXPECT_EQ(ratings, (Ratings{{kAlwaysKept, 0.0f, kAlwaysKept}}));
}

TEST(ValueNorm, RatingsThatSayNothingSayNothing) {
  const PromptLayer<> layer(shape_of(2, 1, 64), {3, 0});
  Ratings none;
  times_value_norm(layer.view(), none);
  EXPECT_TRUE(none.empty());
}

INSTANTIATE_TEST_SUITE_P(Levels, ValueNormFactor, testing::ValuesIn(test::available_isas()), test::isa_of);

}  // namespace
}  // namespace zeromerge
