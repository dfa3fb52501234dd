// Random tokens for one layer of a model, the calls that feed them to a layer, and policies by their text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "support/random.hpp"
#include "support/rounding.hpp"
#include "zeromerge/cache/presets.hpp"

namespace zeromerge::test {

// The policy of "zeromerge:<settings>" with these stored types: one composition for every setting keeps
// compile times low.
template <class K = float, class V = K>
using ZeroMergeOf = Policy<DecayedAttention, AnyBudget, AnyMerge, K, V, AnyPromptScore>;

template <class K = float, class V = K>
ZeroMergeOf<K, V> policy(const std::string& settings) {
  const AnyZeroMerge any = detail::read_zeromerge(Spec("zeromerge:" + settings));
  ZeroMergeOf<K, V> composed{any.score, any.budget, any.merge, any.areas, any.bounded};
  composed.prompt_score = any.prompt_score;
  composed.prompt_share = any.prompt_share;
  composed.refit = any.refit;
  composed.gated = any.gated;
  return composed;
}

template <class K = float, class V = K>
using Cache = KvCache<ZeroMergeOf<K, V>>;

template <class K = float, class V = K>
Cache<K, V> make(const std::string& settings, const Geometry& geometry, CacheOptions options = {}) {
  return Cache<K, V>(geometry, policy<K, V>(settings), std::move(options));
}

// q: [count][query_heads][head_dim]; k, v: [count][kv_heads][head_dim].
struct Tokens {
  Geometry g;
  std::size_t count;
  std::vector<float> q, k, v;

  Tokens(const Geometry& geometry, std::size_t n, std::uint64_t seed) : g(geometry), count(n) {
    Random random(seed);
    q = normals(random, n * g.query_heads * g.head_dim);
    k = normals(random, n * g.kv_heads * g.head_dim, 1.5);  // logits of deviation 1.5 at the usual scale
    v = normals(random, n * g.kv_heads * g.head_dim);
  }

  RowView queries(std::size_t first, std::size_t n) const {
    return rows(q.data() + first * g.query_heads * g.head_dim, n, g.query_heads, g.head_dim);
  }
  RowView keys(std::size_t first, std::size_t n) const {
    return rows(key(first, 0), n, g.kv_heads, g.head_dim);
  }
  RowView values(std::size_t first, std::size_t n) const {
    return rows(value(first, 0), n, g.kv_heads, g.head_dim);
  }

  const float* query(std::size_t token, std::size_t head) const {
    return q.data() + (token * g.query_heads + head) * g.head_dim;
  }
  const float* key(std::size_t token, std::size_t head) const {
    return k.data() + (token * g.kv_heads + head) * g.head_dim;
  }
  const float* value(std::size_t token, std::size_t head) const {
    return v.data() + (token * g.kv_heads + head) * g.head_dim;
  }

  // Keys and values as a cache of these types keeps them.
  template <class K, class V = K>
  Tokens kept() const {
    Tokens t = *this;
    t.k = kept_as<K>(k);
    t.v = kept_as<V>(v);
    return t;
  }
};

// Feeds tokens [first, first + n) and returns their attention [n][query_heads][head_dim].
template <class Layer>
std::vector<float> prefill(Layer& layer, const Tokens& t, std::size_t first, std::size_t n) {
  std::vector<float> out(n * t.g.query_heads * t.g.head_dim);
  layer.prefill(t.queries(first, n), t.keys(first, n), t.values(first, n),
                out_rows(out.data(), n, t.g.query_heads, t.g.head_dim));
  return out;
}

template <class Layer>
std::vector<float> decode(Layer& layer, const Tokens& t, std::size_t token) {
  std::vector<float> out(t.g.query_heads * t.g.head_dim);
  layer.decode(t.queries(token, 1), t.keys(token, 1), t.values(token, 1),
               out_rows(out.data(), 1, t.g.query_heads, t.g.head_dim));
  return out;
}

// A prompt of `prompt` tokens, whole, and the rest token by token; all outputs one after another.
template <class Layer>
std::vector<float> run(Layer& layer, const Tokens& t, std::size_t prompt) {
  std::vector<float> all = prefill(layer, t, 0, prompt);
  for (std::size_t token = prompt; token < t.count; ++token) {
    const auto out = decode(layer, t, token);
    all.insert(all.end(), out.begin(), out.end());
  }
  return all;
}

}  // namespace zeromerge::test
