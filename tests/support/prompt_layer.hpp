// One layer at the end of a random prompt, as prompt scores see it, and the attention of its stored queries
// in double. Everything is read back as it is stored, so that rounding to f16 is no error of a score.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "support/random.hpp"
#include "zeromerge/score/prompt_score.hpp"

namespace zeromerge::test {

struct PromptShape {
  std::size_t tokens;
  std::size_t queries;   // stored ones, of the newest tokens
  bool merged = false;   // entries have a mass and a bias
  bool thinned = false;  // of the older tokens some have left, others in each head
  std::uint64_t seed = 1;
};

template <class K = float>
struct PromptLayer {
  using H = Head<K>;
  Geometry g;
  std::size_t tokens;
  ByteLedger ledger;
  QueryRows queries;
  std::vector<H> heads;
  Executor executor = serial();
  std::vector<float> sinks;  // [query_heads] or empty

  PromptLayer(const Geometry& geometry, const PromptShape& shape)
      : g(geometry), tokens(shape.tokens), queries(g.query_heads, g.head_dim, g.attention_scale(), &ledger) {
    Random random(shape.seed + tokens + g.head_dim);
    const auto q = normals(random, shape.queries * g.query_heads * g.head_dim, 1.5);
    queries.reserve(shape.queries);
    queries.append(rows(q.data(), shape.queries, g.query_heads, g.head_dim));
    for (std::size_t h = 0; h < g.kv_heads; ++h) {
      heads.emplace_back(g.head_dim, EntryFields{false, shape.merged}, &ledger);
      heads[h].reserve(tokens);
      for (std::size_t t = 0; t < tokens; ++t) append(random, h, t, shape);
    }
  }

  PromptView<H> view(const Rope* rope = nullptr) const {
    return {g.shape(0), heads, tokens, queries, rope, sinks.empty() ? nullptr : sinks.data(), executor, {}};
  }

  std::size_t first_query() const { return tokens - queries.tokens(); }
  std::size_t size(std::size_t h) const { return heads[h].size(); }
  std::size_t position(std::size_t h, std::size_t j) const { return heads[h].position()[j]; }
  std::vector<double> query(std::size_t stored, std::size_t query_head) const {
    return read([&](float* to) { queries.read(stored, query_head, 1.0f, to); });
  }
  std::vector<double> key(std::size_t h, std::size_t j) const {
    return read([&](float* to) { heads[h].read_key(j, to); });
  }
  double value_norm(std::size_t h, std::size_t j) const {
    const auto v = read([&](float* to) { heads[h].read_value(j, to); });
    return std::sqrt(dot(v, v));
  }
  double bias(std::size_t h, std::size_t j) const {
    return heads[h].fields().mass ? static_cast<double>(heads[h].bias()[j]) : 0.0;
  }

  static double dot(const std::vector<double>& a, const std::vector<double>& b) {
    double sum = 0.0;
    for (std::size_t d = 0; d < a.size(); ++d) sum += a[d] * b[d];
    return sum;
  }

  // What a stored query sees: [entries], 0 behind its own.
  std::vector<double> attention(std::size_t stored, std::size_t query_head) const {
    const std::size_t h = query_head / g.group();
    const std::size_t limit = size(h) - queries.tokens() + stored + 1;
    const auto q = query(stored, query_head);
    const double cap = static_cast<double>(g.logit_softcap);
    std::vector<double> p(size(h));
    double sum = sinks.empty() ? 0.0 : std::exp(static_cast<double>(sinks[query_head]));
    for (std::size_t j = 0; j < limit; ++j) {
      const double x = dot(q, key(h, j));
      p[j] = std::exp((cap > 0.0 ? cap * std::tanh(x / cap) : x) + bias(h, j));
      sum += p[j];
    }
    for (double& x : p) x /= sum;
    return p;
  }

 private:
  void append(Random& random, std::size_t h, std::size_t token, const PromptShape& shape) {
    const auto k = normals(random, g.head_dim);
    const auto v = normals(random, g.head_dim, 0.25 + random.uniform());
    if (shape.thinned && token < tokens - shape.queries && (token + h) % 3 == 0) return;
    heads[h].append(k.data(), v.data(), static_cast<std::uint32_t>(token));
    if (shape.merged && token % 5 == 2) heads[h].bias()[heads[h].size() - 1] = 1.25f;
  }

  template <class Read>
  std::vector<double> read(const Read& from) const {
    std::vector<float> row(g.head_dim);
    from(row.data());
    return {row.begin(), row.end()};
  }
};

inline Geometry shape_of(std::size_t kv_heads, std::size_t group, std::size_t head_dim,
                         float softcap = 0.0f) {
  return {
      .query_heads = kv_heads * group, .kv_heads = kv_heads, .head_dim = head_dim, .logit_softcap = softcap};
}

}  // namespace zeromerge::test
