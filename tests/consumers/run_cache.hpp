// A small transformer loop over a cache, the same numbers every time: what each consumer runs.
#pragma once

#include <zeromerge/zeromerge.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

inline constexpr std::size_t kPrompt = 300;
inline constexpr std::size_t kDecoded = 20;
inline constexpr zeromerge::Geometry kGeometry{.layers = 2, .query_heads = 6, .kv_heads = 2, .head_dim = 64};
inline constexpr std::ptrdiff_t kPromptValues = kPrompt * kGeometry.query_heads * kGeometry.head_dim;

// Repeatable values in [-1, 1).
inline std::vector<float> values(std::size_t count, std::uint32_t seed) {
  std::vector<float> v(count);
  for (float& x : v) {
    seed = seed * 1664525u + 1013904223u;
    x = static_cast<float>(seed >> 8) / 8388608.0f - 1.0f;
  }
  return v;
}

struct Inputs {
  std::size_t tokens = kPrompt + kDecoded;
  std::vector<float> q =
      values(tokens * kGeometry.query_heads * kGeometry.head_dim, 1);  // [tokens][query_heads][head_dim]
  std::vector<float> k =
      values(tokens * kGeometry.kv_heads * kGeometry.head_dim, 2);  // [tokens][kv_heads][head_dim]
  std::vector<float> v =
      values(tokens * kGeometry.kv_heads * kGeometry.head_dim, 3);  // [tokens][kv_heads][head_dim]
};

// Every layer of the cache gets the same rows. Returns the first layer's outputs
// [tokens][query_heads][head_dim].
template <class Cache>
std::vector<float> run_cache(Cache& cache) {
  using namespace zeromerge;
  const Inputs in;
  const RowView q = rows(in.q.data(), in.tokens, kGeometry.query_heads, kGeometry.head_dim);
  const RowView k = rows(in.k.data(), in.tokens, kGeometry.kv_heads, kGeometry.head_dim);
  const RowView v = rows(in.v.data(), in.tokens, kGeometry.kv_heads, kGeometry.head_dim);
  std::vector<float> out(in.q.size()), other(in.q.size());
  ThreadPool pool(2);
  cache.set_executor(std::ref(pool));
  for (std::size_t l = 0; l < kGeometry.layers; ++l) {
    const auto to = [&](std::size_t first, std::size_t count) {
      float* row = (l == 0 ? out : other).data() + first * kGeometry.query_heads * kGeometry.head_dim;
      return out_rows(row, count, kGeometry.query_heads, kGeometry.head_dim);
    };
    cache.layer(l).prefill(q.slice(0, kPrompt), k.slice(0, kPrompt), v.slice(0, kPrompt), to(0, kPrompt));
    for (std::size_t t = kPrompt; t < in.tokens; ++t)
      cache.layer(l).decode(q.slice(t, 1), k.slice(t, 1), v.slice(t, 1), to(t, 1));
  }
  cache.set_executor(serial());
  return out;
}

// The same with policies composed at compile time.
template <class T>
std::vector<float> run_full() {
  zeromerge::KvCache cache(kGeometry, zeromerge::Full<T>{});
  return run_cache(cache);
}

inline std::vector<float> run_zeromerge(std::size_t budget, std::size_t* entries) {
  zeromerge::ZeroMerge<float> policy{};
  policy.budget.amount = zeromerge::count(static_cast<double>(budget));
  zeromerge::KvCache cache(kGeometry, policy);
  std::vector<float> out = run_cache(cache);
  *entries = cache.layer(kGeometry.layers - 1).head(0).size();
  return out;
}

// Attention by the textbook, in double.
inline std::vector<float> textbook() {
  const Inputs in;
  std::vector<float> out(in.q.size());
  const std::size_t dim = kGeometry.head_dim;
  std::vector<double> weight(in.tokens);
  for (std::size_t t = 0; t < in.tokens; ++t)
    for (std::size_t h = 0; h < kGeometry.query_heads; ++h) {
      const float* q = in.q.data() + (t * kGeometry.query_heads + h) * dim;
      const std::size_t kv = h / kGeometry.group();
      double sum = 0.0;
      for (std::size_t j = 0; j <= t; ++j) {
        const float* k = in.k.data() + (j * kGeometry.kv_heads + kv) * dim;
        double dot = 0.0;
        for (std::size_t d = 0; d < dim; ++d) dot += static_cast<double>(q[d]) * static_cast<double>(k[d]);
        sum += weight[j] = std::exp(dot / std::sqrt(static_cast<double>(dim)));
      }
      for (std::size_t d = 0; d < dim; ++d) {
        double x = 0.0;
        for (std::size_t j = 0; j <= t; ++j)
          x += weight[j] / sum * static_cast<double>(in.v[(j * kGeometry.kv_heads + kv) * dim + d]);
        out[(t * kGeometry.query_heads + h) * dim + d] = static_cast<float>(x);
      }
    }
  return out;
}

inline float largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  float most = a.size() == b.size() ? 0.0f : 1e9f;
  for (std::size_t i = 0; i < a.size() && i < b.size(); ++i) most = std::fmax(most, std::fabs(a[i] - b[i]));
  return most;
}
