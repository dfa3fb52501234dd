// The far maximum against its formula in double.
#include "zeromerge/score/far_maximum.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "support/isa.hpp"
#include "support/prompt_layer.hpp"

namespace zeromerge {
namespace {

using test::PromptLayer;
using test::shape_of;

std::vector<double> expected(const PromptLayer<>& layer, std::size_t h, std::size_t distance) {
  std::vector<double> top(layer.size(h));
  for (std::size_t i = 0; i < layer.queries.tokens(); ++i)
    for (std::size_t m = h * layer.g.group(); m < (h + 1) * layer.g.group(); ++m) {
      const auto p = layer.attention(i, m);
      for (std::size_t j = 0; j < top.size(); ++j)
        if (layer.position(h, j) + distance <= layer.first_query() + i) top[j] = std::max(top[j], p[j]);
    }
  return top;
}

void check(PromptLayer<>&& layer, std::size_t distance = 64) {
  SCOPED_TRACE(testing::Message() << layer.g.query_heads << "/" << layer.g.kv_heads << "x" << layer.g.head_dim
                                  << ", " << layer.tokens << " tokens, " << layer.queries.tokens()
                                  << " queries, distance " << distance);
  const FarMaximum score{distance};
  const Ratings got = score.rate(layer.view());
  ASSERT_EQ(got.size(), layer.g.kv_heads);
  for (std::size_t h = 0; h < got.size(); ++h) {
    const auto want = expected(layer, h, distance);
    ASSERT_EQ(got[h].size(), want.size());
    for (std::size_t j = 0; j < want.size(); ++j)
      ASSERT_NEAR(got[h][j], want[j], 1e-4 * want[j] + 1e-9) << "head " << h << " entry " << j;
  }
  layer.executor = threads(3);
  EXPECT_EQ(score.rate(layer.view()), got);
}

class FarMaximumScore : public test::EachIsa {};

TEST_P(FarMaximumScore, IsItsFormula) {
  for (const std::size_t head_dim : {64, 80, 128})
    for (const std::size_t group : {1, 3, 4}) check({shape_of(2, group, head_dim), {97, 97}});
  for (const std::size_t tokens : {1, 64, 65, 80, 81, 129, 257, 300})
    check({shape_of(1, 3, 64), {tokens, tokens}});
}

TEST_P(FarMaximumScore, CountsExactlyTheQueriesThatAreFarEnough) {
  for (const std::size_t distance : {0, 1, 3, 15, 16, 17, 200, 1000})
    check({shape_of(1, 3, 64), {210, 210}}, distance);
}

TEST_P(FarMaximumScore, AsksTheQueriesThatAreThere) {
  for (const std::size_t queries : {0, 1, 17, 100}) check({shape_of(2, 3, 64), {230, queries}});
}

TEST_P(FarMaximumScore, MeasuresDistanceInTokensWhereEntriesHaveLeft) {
  check({shape_of(2, 3, 64), {.tokens = 150, .queries = 60, .thinned = true}});
  check({shape_of(2, 3, 64), {.tokens = 150, .queries = 60, .thinned = true}}, 10);
}

TEST_P(FarMaximumScore, KnowsSoftCapsSinkLogitsAndMergedEntries) {
  check({shape_of(1, 3, 64, 5.0f), {100, 100}});
  PromptLayer<> layer(shape_of(1, 3, 64), {.tokens = 100, .queries = 100, .merged = true});
  layer.sinks = {0.5f, 4.0f, -1.0f};
  check(std::move(layer), 20);
}

INSTANTIATE_TEST_SUITE_P(Levels, FarMaximumScore, testing::ValuesIn(test::available_isas()), test::isa_of);

}  // namespace
}  // namespace zeromerge
