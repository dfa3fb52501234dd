#include "zeromerge/score/key_diff.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "support/isa.hpp"
#include "support/prompt_layer.hpp"

namespace zeromerge {
namespace {

using test::PromptLayer;
using test::shape_of;

template <class K>
void check(const PromptLayer<K>& layer) {
  SCOPED_TRACE(testing::Message() << layer.tokens << " tokens of " << layer.g.head_dim << " channels");
  const Ratings got = KeyDiff{}.rate(layer.view());
  ASSERT_EQ(got.size(), layer.g.kv_heads);
  for (std::size_t h = 0; h < got.size(); ++h) {
    const std::size_t n = layer.size(h);
    ASSERT_EQ(got[h].size(), n);
    std::vector<double> anchor(layer.g.head_dim);
    for (std::size_t j = 0; j < n; ++j) {
      const auto k = layer.key(h, j);
      for (std::size_t d = 0; d < k.size(); ++d)
        anchor[d] += k[d] / std::sqrt(layer.dot(k, k)) / static_cast<double>(n);
    }
    for (std::size_t j = 0; j < n; ++j) {
      const auto k = layer.key(h, j);
      const double cosine = layer.dot(k, anchor) / std::sqrt(layer.dot(k, k) * layer.dot(anchor, anchor));
      ASSERT_NEAR(got[h][j], -cosine, 1e-5) << "head " << h << " entry " << j;
    }
  }
}

class KeyDiffScore : public test::EachIsa {};

TEST_P(KeyDiffScore, IsItsFormula) {
  for (const std::size_t head_dim : {64, 80, 128})
    for (const std::size_t tokens : {1, 15, 16, 17, 256, 257})
      check(PromptLayer<>(shape_of(2, 3, head_dim), {tokens, 0}));
  check(PromptLayer<q8>(shape_of(2, 3, 64), {70, 0}));
}

TEST_P(KeyDiffScore, TheKeyUnlikeTheOthersIsWorthMost) {
  PromptLayer<> layer(shape_of(1, 1, 64), {40, 0});
  std::vector<float> k(64, 1.0f);
  for (std::size_t j = 0; j < 40; ++j) layer.heads[0].write_key(j, k.data());
  k.assign(64, 0.0f);
  layer.heads[0].write_key(7, k.data());  // of no direction
  k[0] = -3.0f;
  layer.heads[0].write_key(23, k.data());
  const Ratings got = KeyDiff{}.rate(layer.view());
  EXPECT_EQ(std::max_element(got[0].begin(), got[0].end()) - got[0].begin(), 23);
  EXPECT_EQ(got[0][7], 0.0f);
  EXPECT_LT(got[0][0], -0.9f);
}

TEST(KeyDiff, NeedsNoQueriesSoItCanBeAskedInDecode) {
  EXPECT_FALSE(KeyDiff{}.needs_queries());
  EXPECT_FALSE(KeyDiff{}.needs_rope());
  EXPECT_TRUE(KeyDiff{}.rates_in_decode());
}

INSTANTIATE_TEST_SUITE_P(Levels, KeyDiffScore, testing::ValuesIn(test::available_isas()), test::isa_of);

}  // namespace
}  // namespace zeromerge
