// The fitted values solve their ridge regression, computed by plain loops in double, and bring outputs nearer
// to those over all entries.
#include "zeromerge/merge/refit.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "support/attention.hpp"
#include "support/isa.hpp"
#include "support/random.hpp"
#include "zeromerge/storage/head.hpp"

namespace zeromerge {
namespace {

using test::Random;

template <class T>
struct Layer {
  Geometry g;
  std::size_t tokens;
  Rope rope;
  ByteLedger ledger;
  std::vector<float> q;  // [tokens][query_heads][head_dim]
  QueryRows queries;
  Head<T> all;
  Executor executor = serial();

  Layer(const Geometry& geometry, std::size_t n, std::uint64_t seed)
      : g(geometry),
        tokens(n),
        rope({.dims = g.head_dim}, g.head_dim),
        queries(g.query_heads, g.head_dim, g.attention_scale(), &ledger),
        all(g.head_dim, {}, &ledger) {
    Random random(seed);
    q = test::normals(random, n * g.query_heads * g.head_dim, 1.5);
    for (float& x : q) x = to_f32(from_f32<f16>(x));
    queries.reserve(n);
    queries.append(rows(q.data(), n, g.query_heads, g.head_dim));
    all.reserve(n);
    for (std::size_t t = 0; t < n; ++t) {
      const std::vector<float> k = test::normals(random, g.head_dim), v = test::normals(random, g.head_dim);
      all.append(k.data(), v.data(), static_cast<std::uint32_t>(t));
    }
  }

  // At the end of a prompt of n tokens.
  PromptView<Head<T>> view(std::size_t n) const {
    return {g.shape(0), {}, n, queries, &rope, nullptr, executor, {}};
  }

  // Every `step`-th entry.
  Head<T> some(std::size_t step) {
    Head<T> kept = all.sibling();
    kept.fit((tokens + step - 1) / step);
    std::size_t to = 0;
    for (std::size_t t = 0; t < tokens; t += step) kept.copy(all, t, to++);
    kept.set_size(to);
    kept.settle(to);
    return kept;
  }

  std::vector<float> keys(const Head<T>& head) const { return read(head, true); }
  std::vector<float> values(const Head<T>& head) const { return read(head, false); }
  std::vector<float> read(const Head<T>& head, bool key) const {
    std::vector<float> x(head.size() * g.head_dim);
    for (std::size_t j = 0; j < head.size(); ++j)
      key ? head.read_key(j, x.data() + j * g.head_dim) : head.read_value(j, x.data() + j * g.head_dim);
    return x;
  }

  // Attention of token i's query of query head m, turned to position `tokens` (reach = 1), by the textbook.
  test::Attention attention(std::size_t i, std::size_t m, const std::vector<float>& k,
                            const std::vector<float>& v) const {
    std::vector<float> row(q.data() + (i * g.query_heads + m) * g.head_dim,
                           q.data() + (i * g.query_heads + m + 1) * g.head_dim);
    rope.apply(rope.turn(static_cast<double>(tokens - i)), row.data());
    return test::attention(
        row.data(), g.head_dim, k.size() / g.head_dim, static_cast<double>(g.attention_scale()),
        static_cast<double>(g.logit_softcap), [&](std::size_t j) { return k.data() + j * g.head_dim; },
        [&](std::size_t j) { return v.data() + j * g.head_dim; }, [](std::size_t) { return 0.0f; });
  }
};

// The sum of squares of what outputs over the kept entries differ from those over all, and the gradient of it
// with the ridge, relative to its size, at its largest.
struct Fit {
  double error = 0.0;
  double gradient = 0.0;
};

template <class T>
Fit judge(const Layer<T>& layer, const Head<T>& before, const Head<T>& after, double ridge) {
  const std::size_t dim = layer.g.head_dim, n = after.size();
  const auto all_k = layer.keys(layer.all), all_v = layer.values(layer.all);
  const auto k = layer.keys(after), v = layer.values(after), old = layer.values(before);
  std::vector<double> gradient(n * dim), size(n * dim), diagonal(n);
  Fit fit;
  for (std::size_t i = 0; i < layer.tokens; ++i)
    for (std::size_t m = 0; m < layer.g.group(); ++m) {
      const test::Attention goal = layer.attention(i, m, all_k, all_v);
      const test::Attention got = layer.attention(i, m, k, v);
      for (std::size_t d = 0; d < dim; ++d) {
        const double rest = got.out[d] - goal.out[d];
        fit.error += rest * rest;
        for (std::size_t j = 0; j < n; ++j) {
          gradient[j * dim + d] += got.probability[j] * rest;
          size[j * dim + d] += got.probability[j] * (std::abs(got.out[d]) + std::abs(goal.out[d]));
        }
      }
      for (std::size_t j = 0; j < n; ++j) diagonal[j] += got.probability[j] * got.probability[j];
    }
  double rho = 0.0;
  for (const double x : diagonal) rho += ridge * x / static_cast<double>(n);
  for (std::size_t x = 0; x < n * dim; ++x) {
    gradient[x] += rho * (static_cast<double>(v[x]) - static_cast<double>(old[x]));
    fit.gradient = std::max(fit.gradient, std::abs(gradient[x]) / size[x]);
  }
  return fit;
}

template <class H>
void refit(const RefitParams& params, const PromptView<H>& view, const H& all, H& kept) {
  const ReferenceQueries<H> references(view, params.references, params.reach);
  ValueRefit<H>(params, references).fit({&all, 1}, {&kept, 1}, view.executor);
}

template <class T>
void check(const Geometry& g, std::size_t tokens, std::size_t step, double tolerance) {
  SCOPED_TRACE(testing::Message() << g.query_heads << " query heads x " << g.head_dim << ", every " << step
                                  << "th of " << tokens);
  Layer<T> layer(g, tokens, tokens + step);
  Head<T> before = layer.some(step), after = layer.some(step);
  const RefitParams params{.references = tokens, .ridge = 0.1f, .reach = 1};
  refit(params, layer.view(tokens), layer.all, after);
  EXPECT_EQ(layer.keys(after), layer.keys(before));
  const Fit was = judge(layer, before, before, 0.1), is = judge(layer, before, after, 0.1);
  EXPECT_LT(is.error, 0.8 * was.error);
  EXPECT_LT(is.gradient, tolerance);
}

class Refit : public test::EachIsa {};

TEST_P(Refit, SolvesItsRegression) {
  // More equations than kept entries, and fewer.
  check<float>({.query_heads = 3, .kv_heads = 1, .head_dim = 64}, 90, 3, 1e-3);
  check<float>({.query_heads = 1, .kv_heads = 1, .head_dim = 80}, 40, 1 + 1, 1e-3);
  check<float>({.query_heads = 4, .kv_heads = 1, .head_dim = 64, .logit_softcap = 3.0f}, 70, 5, 1e-3);
}

TEST_P(Refit, FitsTheKeysAsTheyAreStored) {
  check<q4>({.query_heads = 3, .kv_heads = 1, .head_dim = 64}, 200, 3, 0.12);
  check<q8>({.query_heads = 3, .kv_heads = 1, .head_dim = 64}, 90, 3, 0.02);
}

TEST_P(Refit, ChangesNothingWhereNothingLeft) {
  Layer<float> layer({.query_heads = 2, .kv_heads = 1, .head_dim = 64}, 50, 9);
  Head<float> same = layer.some(1);
  refit({.references = 20}, layer.view(50), layer.all, same);
  const auto before = layer.values(layer.all), after = layer.values(same);
  for (std::size_t x = 0; x < before.size(); ++x) ASSERT_NEAR(after[x], before[x], 1e-4);
}

TEST_P(Refit, NeedsReferences) {
  Layer<float> layer({.query_heads = 2, .kv_heads = 1, .head_dim = 64}, 50, 9);
  Head<float> kept = layer.some(2);
  const auto before = layer.values(kept);
  refit({.references = 0}, layer.view(50), layer.all, kept);
  EXPECT_EQ(layer.values(kept), before);
}

INSTANTIATE_TEST_SUITE_P(Levels, Refit, testing::ValuesIn(test::available_isas()), test::isa_of);

}  // namespace
}  // namespace zeromerge
