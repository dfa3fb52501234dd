// Expected attention against its formula in double, with rotation matrices written out: queries are
// unrotated, their moments taken, and these turned by the mean of the rotations to the next positions.
#include "zeromerge/score/expected_attention.hpp"

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
using Numbers = std::vector<double>;
using Matrix = std::vector<Numbers>;

// The rotation to a position, or the way back from it, with the length that the model's RoPE gives rows.
Matrix rotation(const Rope& rope, std::size_t head_dim, double position, double length) {
  Matrix r(head_dim, Numbers(head_dim));
  for (std::size_t d = 0; d < head_dim; ++d) r[d][d] = 1.0;
  const RopeParams& p = rope.params();
  for (std::size_t i = 0; i < p.dims / 2; ++i) {
    const bool halves = p.pairs == RopePairs::halves;
    const std::size_t x = p.first + (halves ? i : 2 * i), y = halves ? x + p.dims / 2 : x + 1;
    const double angle = position * rope.frequencies()[i];
    r[x][x] = r[y][y] = length * std::cos(angle);
    r[x][y] = -length * std::sin(angle);
    r[y][x] = length * std::sin(angle);
  }
  return r;
}

Numbers times(const Matrix& m, const Numbers& x) {
  Numbers y(m.size());
  for (std::size_t a = 0; a < m.size(); ++a)
    for (std::size_t b = 0; b < x.size(); ++b) y[a] += m[a][b] * x[b];
  return y;
}

// z of every entry for a query head.
template <class K>
Numbers logits(const PromptLayer<K>& layer, const Rope& rope, std::size_t query_head,
               const ExpectedAttention& score) {
  const std::size_t dim = layer.g.head_dim, h = query_head / layer.g.group();
  Matrix plain, ahead(dim, Numbers(dim));
  for (std::size_t i = 0; i < layer.queries.tokens(); ++i) {
    const std::size_t position = layer.first_query() + i;
    if (position >= score.sinks)
      plain.push_back(times(rotation(rope, dim, -static_cast<double>(position), 1.0 / rope.length()),
                            layer.query(i, query_head)));
  }
  for (std::size_t f = 0; f < score.reach; ++f) {
    const Matrix r = rotation(rope, dim, static_cast<double>(layer.tokens + f), rope.length());
    for (std::size_t a = 0; a < dim; ++a)
      for (std::size_t b = 0; b < dim; ++b) ahead[a][b] += r[a][b] / static_cast<double>(score.reach);
  }
  const auto n = static_cast<double>(std::max<std::size_t>(plain.size(), 1));
  Numbers mean(dim), z;
  Matrix covariance(dim, Numbers(dim)), back(dim, Numbers(dim));
  for (const Numbers& q : plain)
    for (std::size_t d = 0; d < dim; ++d) mean[d] += q[d] / n;
  for (const Numbers& q : plain)
    for (std::size_t a = 0; a < dim; ++a)
      for (std::size_t b = 0; b < dim; ++b) covariance[a][b] += (q[a] - mean[a]) * (q[b] - mean[b]) / n;
  for (std::size_t a = 0; a < dim; ++a)
    for (std::size_t b = 0; b < dim; ++b) back[b][a] = ahead[a][b];
  for (std::size_t j = 0; j < layer.size(h); ++j) {
    const Numbers k = layer.key(h, j), turned = times(back, k);  // k' R x = (R' k)' x
    z.push_back(layer.dot(turned, mean) + layer.dot(turned, times(covariance, turned)) / 2.0 +
                layer.bias(h, j));
  }
  return z;
}

template <class K>
Numbers expected(const PromptLayer<K>& layer, const Rope& rope, std::size_t h,
                 const ExpectedAttention& score) {
  Numbers s(layer.size(h));
  for (std::size_t m = h * layer.g.group(); m < (h + 1) * layer.g.group(); ++m) {
    const Numbers z = logits(layer, rope, m, score);
    double sum = 0.0;
    for (std::size_t j = 0; j < z.size(); ++j)
      if (layer.position(h, j) >= score.sinks) sum += std::exp(z[j]);
    for (std::size_t j = 0; j < z.size(); ++j)
      s[j] += std::exp(z[j]) / sum / static_cast<double>(layer.g.group());
  }
  for (std::size_t j = 0; j < s.size(); ++j)
    s[j] = layer.position(h, j) < score.sinks
               ? 1e30
               : (s[j] + static_cast<double>(score.epsilon)) * layer.value_norm(h, j);
  return s;
}

template <class K>
void check(const PromptLayer<K>& layer, const RopeParams& params, const ExpectedAttention& score = {}) {
  SCOPED_TRACE(testing::Message() << layer.g.query_heads << "/" << layer.g.kv_heads << "x" << layer.g.head_dim
                                  << ", " << layer.tokens << " tokens, " << layer.queries.tokens()
                                  << " queries");
  const Rope rope(params, layer.g.head_dim);
  const Ratings got = score.rate(layer.view(&rope));
  ASSERT_EQ(got.size(), layer.g.kv_heads);
  for (std::size_t h = 0; h < got.size(); ++h) {
    const Numbers want = expected(layer, rope, h, score);
    ASSERT_EQ(got[h].size(), want.size());
    for (std::size_t j = 0; j < want.size(); ++j)
      ASSERT_NEAR(got[h][j], want[j], 3e-4 * want[j]) << "head " << h << " entry " << j;
  }
}

class ExpectedAttentionScore : public test::EachIsa {};

TEST_P(ExpectedAttentionScore, IsItsFormula) {
  for (const std::size_t head_dim : {64, 80, 128})
    check(PromptLayer<>(shape_of(1, 3, head_dim), {97, 97}), {.dims = head_dim}, {.epsilon = 0.0f});
  for (const std::size_t group : {1, 4})
    check(PromptLayer<>(shape_of(2, group, 16), {65, 65}), {.dims = 16}, {.reach = 16});
  for (const std::size_t tokens : {5, 16, 17, 33, 63, 64, 65, 256, 257})
    check(PromptLayer<>(shape_of(1, 1, 24), {tokens, tokens}), {.dims = 24});
}

TEST_P(ExpectedAttentionScore, SkipsTheFirstPositionsOnlyWhereTheirQueriesAreStored) {
  for (const std::size_t queries : {0, 1, 20, 67, 68, 69, 70})
    check(PromptLayer<>(shape_of(2, 2, 16), {70, queries}), {.dims = 16}, {.epsilon = 0.0f});
}

TEST_P(ExpectedAttentionScore, KnowsEveryVariantOfRope) {
  const PromptLayer<> layer(shape_of(1, 2, 32), {70, 70});
  check(layer, {.dims = 32, .pairs = RopePairs::neighbours});
  check(layer, {.dims = 16, .first = 8});
  check(layer, {.dims = 32, .base = 1e6, .scale = 0.25, .extrapolation = 1.0, .original_context = 64});
  check(layer, {.dims = 32, .attention = 1.5});
}

TEST_P(ExpectedAttentionScore, AddsTheBiasOfMergedEntriesAndWorksOnAnyStorage) {
  check(PromptLayer<>(shape_of(1, 2, 32), {.tokens = 90, .queries = 90, .merged = true}), {.dims = 32});
  check(PromptLayer<>(shape_of(2, 2, 32), {.tokens = 90, .queries = 30, .thinned = true}), {.dims = 32});
  check(PromptLayer<q8>(shape_of(1, 2, 32), {90, 90}), {.dims = 32});
}

TEST_P(ExpectedAttentionScore, TheSinksAreAlwaysKept) {
  const Rope rope({.dims = 64}, 64);
  for (const std::size_t tokens : {1, 4, 5, 90}) {
    const Ratings got =
        ExpectedAttention{}.rate(PromptLayer<>(shape_of(2, 3, 64), {tokens, tokens}).view(&rope));
    for (const auto& head : got)
      for (std::size_t j = 0; j < tokens; ++j) EXPECT_EQ(head[j] == kAlwaysKept, j < 4) << j;
  }
}

INSTANTIATE_TEST_SUITE_P(Levels, ExpectedAttentionScore, testing::ValuesIn(test::available_isas()),
                         test::isa_of);

}  // namespace
}  // namespace zeromerge
