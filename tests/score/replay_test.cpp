// Replay against its formula in double: turned queries over all entries, with the sum of what each saw the
// first time, without the first entry, in the denominator.
#include "zeromerge/score/replay.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <type_traits>
#include <vector>

#include "support/isa.hpp"
#include "support/random.hpp"

namespace zeromerge {
namespace {

using test::Random;

template <class K>
struct Layer {
  Geometry g;
  std::size_t tokens;
  std::vector<float> q, k;  // [tokens][heads][head_dim], rotated
  ByteLedger ledger;
  QueryRows queries;
  std::vector<Head<K>> heads;

  Layer(const Geometry& geometry, std::size_t n, std::size_t with_queries, const float* sinks,
        std::uint64_t seed)
      : g(geometry), tokens(n), queries(g.query_heads, g.head_dim, g.attention_scale(), &ledger) {
    Random random(seed);
    q = test::normals(random, n * g.query_heads * g.head_dim, 1.5);
    k = test::normals(random, n * g.kv_heads * g.head_dim);
    for (float& x : q) x = to_f32(from_f32<f16>(x));
    for (float& x : k) x = to_f32(from_f32<K>(x));
    queries.reserve(with_queries);
    float* local =
        queries.append(rows(q.data(), n, g.query_heads, g.head_dim).slice(n - with_queries, with_queries));
    for (std::size_t i = n - with_queries; i < n; ++i)
      for (std::size_t m = 0; m < g.query_heads; ++m)
        *local++ = static_cast<float>(std::log2(local_sum(i, m, sinks)));
    for (std::size_t h = 0; h < g.kv_heads; ++h) {
      heads.emplace_back(g.head_dim, EntryFields{}, &ledger);
      heads[h].reserve(n);
      for (std::size_t t = 0; t < n; ++t) {
        const float* row = k.data() + (t * g.kv_heads + h) * g.head_dim;
        heads[h].append(row, row, static_cast<std::uint32_t>(t));
      }
    }
  }

  std::vector<float> query(std::size_t i, std::size_t m) const {
    const auto row = q.begin() + static_cast<std::ptrdiff_t>((i * g.query_heads + m) * g.head_dim);
    return {row, row + static_cast<std::ptrdiff_t>(g.head_dim)};
  }

  double local_sum(std::size_t i, std::size_t m, const float* sinks) const {
    const std::vector<float> row = query(i, m);
    double sum = sinks != nullptr ? std::exp(static_cast<double>(sinks[m])) : 0.0;
    for (std::size_t j = 1; j <= i; ++j) sum += std::exp(logit({row.begin(), row.end()}, j, m / g.group()));
    return sum;
  }

  double logit(const std::vector<double>& a, std::size_t j, std::size_t h) const {
    double sum = 0.0;
    for (std::size_t d = 0; d < g.head_dim; ++d)
      sum += a[d] * static_cast<double>(k[(j * g.kv_heads + h) * g.head_dim + d]);
    sum *= static_cast<double>(g.attention_scale());
    const double cap = static_cast<double>(g.logit_softcap);
    return cap > 0.0 ? cap * std::tanh(sum / cap) : sum;
  }

  // The formula, for the queries from token `from` on.
  std::vector<double> expected(const Rope& rope, std::size_t from, std::size_t h, const float* sinks) const {
    std::vector<double> importance(tokens);
    const std::size_t group = g.group();
    for (std::size_t i = from; i < tokens; ++i)
      for (std::size_t m = h * group; m < (h + 1) * group; ++m) {
        std::vector<float> row = query(i, m);
        rope.apply(rope.turn(static_cast<double>(tokens)), row.data());
        const std::vector<double> again(row.begin(), row.end());
        double sum = local_sum(i, m, sinks);
        for (std::size_t j = 0; j < tokens; ++j) sum += std::exp(logit(again, j, h));
        for (std::size_t j = 0; j < tokens; ++j)
          importance[j] = std::max(importance[j], std::exp(logit(again, j, h)) / sum);
      }
    return importance;
  }
};

template <class K>
void check_as(const Geometry& g, std::size_t tokens, std::size_t with_queries, const float* sinks) {
  SCOPED_TRACE(testing::Message() << g.query_heads << "/" << g.kv_heads << "x" << g.head_dim << ", " << tokens
                                  << " tokens, " << with_queries << " queries, keys of " << sizeof(K)
                                  << " bytes");
  const Layer<K> layer(g, tokens, with_queries, sinks, tokens + g.head_dim);
  const Rope rope({.dims = g.head_dim / 2 * 2}, g.head_dim);
  const auto rate = [&](const Executor& executor) {
    return Replay{}.rate(
        PromptView<Head<K>>{g.shape(0), layer.heads, tokens, layer.queries, &rope, sinks, executor, {}});
  };
  const Ratings got = rate(serial());
  if (with_queries == 0) {
    EXPECT_TRUE(got.empty());
    return;
  }
  // Stored queries are f16: 2^-11 of a logit, whose size is about 8 at most here. Where there are
  // instructions for bf16 they and keys of 16 bits are rounded to it.
  const double off = isa() >= Isa::avx512bf16 && !std::is_same_v<K, float> ? 4e-2 : 1e-2;
  for (std::size_t h = 0; h < g.kv_heads; ++h) {
    const std::vector<double> expected = layer.expected(rope, tokens - with_queries, h, sinks);
    ASSERT_EQ(got[h].size(), tokens);
    for (std::size_t j = 0; j < tokens; ++j)
      ASSERT_NEAR(got[h][j], expected[j], off * expected[j] + 1e-7) << "head " << h << " entry " << j;
  }
  EXPECT_EQ(rate(threads(3)), got);
}

void check(const Geometry& g, std::size_t tokens, std::size_t with_queries, const float* sinks) {
  check_as<float>(g, tokens, with_queries, sinks);
  check_as<f16>(g, tokens, with_queries, sinks);
}

class ReplayScore : public test::EachIsa {};

TEST_P(ReplayScore, IsItsFormula) {
  for (const std::size_t head_dim : {64, 80})
    for (const std::size_t group : {1, 3, 4})
      check({.query_heads = 2 * group, .kv_heads = 2, .head_dim = head_dim}, 97, 97, nullptr);
  check({.query_heads = 3, .kv_heads = 1, .head_dim = 128}, 300, 300, nullptr);
  check({.query_heads = 3, .kv_heads = 1, .head_dim = 64}, 1, 1, nullptr);
}

TEST_P(ReplayScore, AsksTheQueriesThatAreThere) {
  check({.query_heads = 6, .kv_heads = 2, .head_dim = 64}, 130, 17, nullptr);
  check({.query_heads = 6, .kv_heads = 2, .head_dim = 64}, 130, 0, nullptr);
}

TEST_P(ReplayScore, KnowsSoftCapsAndSinkLogits) {
  const float sinks[] = {0.5f, 2.0f, -1.0f};
  check({.query_heads = 3, .kv_heads = 1, .head_dim = 64, .logit_softcap = 5.0f}, 70, 70, nullptr);
  check({.query_heads = 3, .kv_heads = 1, .head_dim = 64}, 70, 70, sinks);
}

INSTANTIATE_TEST_SUITE_P(Levels, ReplayScore, testing::ValuesIn(test::available_isas()), test::isa_of);

}  // namespace
}  // namespace zeromerge
