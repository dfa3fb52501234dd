// Window attention against its formula in double.
#include "zeromerge/score/window_attention.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "support/isa.hpp"
#include "support/prompt_layer.hpp"

namespace zeromerge {
namespace {

using test::PromptLayer;
using test::PromptShape;
using test::shape_of;

template <class K>
std::vector<double> expected(const PromptLayer<K>& layer, std::size_t h, const WindowAttention& score) {
  const std::size_t n = layer.size(h);
  const std::size_t window = std::min(score.window, n);
  const std::size_t stored = layer.queries.tokens();
  const std::size_t asked = std::min(window, stored);
  std::vector<double> mean(n), pooled(n, 1e30);
  for (std::size_t i = stored - asked; i < stored; ++i)
    for (std::size_t m = h * layer.g.group(); m < (h + 1) * layer.g.group(); ++m) {
      const auto p = layer.attention(i, m);
      for (std::size_t j = 0; j < n; ++j) mean[j] += p[j] / static_cast<double>(asked * layer.g.group());
    }
  for (std::size_t j = 0; j + window < n; ++j) {
    double sum = 0.0, top = 0.0;
    for (std::size_t k = 0; k < score.kernel; ++k) {
      const std::size_t place = j + k;
      if (place < score.kernel / 2 || place - score.kernel / 2 >= n - window) continue;
      sum += mean[place - score.kernel / 2];
      top = std::max(top, mean[place - score.kernel / 2]);
    }
    pooled[j] = score.maximum ? top : sum / static_cast<double>(score.kernel);
  }
  return pooled;
}

template <class K>
void check(const PromptLayer<K>& layer, const WindowAttention& score = {}) {
  SCOPED_TRACE(testing::Message() << layer.g.query_heads << "/" << layer.g.kv_heads << "x" << layer.g.head_dim
                                  << ", " << layer.tokens << " tokens, " << layer.queries.tokens()
                                  << " queries");
  const Ratings got = score.rate(layer.view());
  ASSERT_EQ(got.size(), layer.g.kv_heads);
  for (std::size_t h = 0; h < got.size(); ++h) {
    const auto want = expected(layer, h, score);
    ASSERT_EQ(got[h].size(), want.size());
    for (std::size_t j = 0; j < want.size(); ++j)
      ASSERT_NEAR(got[h][j], want[j], 1e-4 * want[j] + 1e-8) << "head " << h << " entry " << j;
  }
}

class WindowAttentionScore : public test::EachIsa {};

TEST_P(WindowAttentionScore, IsItsFormula) {
  for (const std::size_t head_dim : {64, 80, 128})
    for (const std::size_t group : {1, 3, 4}) check(PromptLayer<>(shape_of(2, group, head_dim), {97, 97}));
  for (const std::size_t tokens : {33, 47, 48, 49, 64, 65, 255, 256, 257, 289})
    check(PromptLayer<>(shape_of(1, 3, 64), {tokens, tokens}));
}

TEST_P(WindowAttentionScore, PoolsByTheMaximumOverOtherWindowsAndKernels) {
  const PromptLayer<> layer(shape_of(2, 3, 64), {130, 130});
  for (const bool maximum : {false, true})
    for (const std::size_t kernel : {1, 2, 5, 7}) check(layer, {16, kernel, maximum});
}

TEST_P(WindowAttentionScore, AsksTheQueriesThatAreThere) {
  check(PromptLayer<>(shape_of(2, 3, 64), {130, 40}));
  check(PromptLayer<>(shape_of(2, 3, 64), {130, 7}));
  check(PromptLayer<>(shape_of(2, 3, 64), {130, 0}));
}

TEST_P(WindowAttentionScore, KnowsSoftCapsSinkLogitsAndMergedEntries) {
  check(PromptLayer<>(shape_of(1, 3, 64, 5.0f), {90, 90}));
  PromptLayer<> layer(shape_of(1, 3, 64), {.tokens = 90, .queries = 90, .merged = true});
  check(layer);
  layer.sinks = {0.5f, 4.0f, -1.0f};
  check(layer);
}

TEST_P(WindowAttentionScore, WorksOnAnyStorageAndOnHeadsThatHaveLostEntries) {
  check(PromptLayer<f16>(shape_of(2, 2, 64), {90, 90}));
  check(PromptLayer<q8>(shape_of(2, 2, 64), {90, 90}));
  check(PromptLayer<>(shape_of(2, 3, 64), {.tokens = 150, .queries = 50, .thinned = true}));
}

TEST_P(WindowAttentionScore, TheWindowIsAlwaysKept) {
  for (const std::size_t tokens : {1, 5, 31, 32, 33, 200}) {
    const Ratings got = WindowAttention{}.rate(PromptLayer<>(shape_of(2, 3, 64), {tokens, tokens}).view());
    for (const auto& head : got)
      for (std::size_t j = 0; j < tokens; ++j) EXPECT_EQ(head[j] == kAlwaysKept, j + 32 >= tokens) << j;
  }
}

INSTANTIATE_TEST_SUITE_P(Levels, WindowAttentionScore, testing::ValuesIn(test::available_isas()),
                         test::isa_of);

}  // namespace
}  // namespace zeromerge
