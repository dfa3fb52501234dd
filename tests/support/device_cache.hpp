// Feeds the same tokens to a cache on the device, or its emulation, as to one on the host.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include "support/device.hpp"
#include "support/sequence.hpp"
#include "zeromerge/cuda/make_cache.hpp"

namespace zeromerge::test {

// A view of this shape over device memory.
inline RowView at(const cuda::Buffer<float>& data, const RowView& shape) {
  RowView view = shape;
  view.data = data.data();
  return view;
}
inline cuda::Buffer<float> on_device(const RowView& rows) {
  const auto* first = static_cast<const float*>(rows.data);
  return uploaded(std::vector<float>(first, first + rows.tokens * rows.heads * rows.head_dim));
}

// Tokens [first, first + n) as a prompt's call; returns their attention.
template <class Cache>
std::vector<float> prefill_device(Cache& cache, std::size_t layer, std::size_t sequence, const Tokens& t,
                                  std::size_t first, std::size_t n, cuda::Stream stream = {}) {
  const auto q = on_device(t.queries(first, n));
  const auto k = on_device(t.keys(first, n));
  const auto v = on_device(t.values(first, n));
  const cuda::Buffer<float> out(n * t.g.query_heads * t.g.head_dim);
  cache.prefill(layer, sequence, at(q, t.queries(first, n)), at(k, t.keys(first, n)),
                at(v, t.values(first, n)), cuda::out_rows(out.data(), n, t.g.query_heads, t.g.head_dim),
                stream);
  return downloaded(out, stream);
}

// The token of each sequence, side by side as a batch brings them.
struct BatchTokens {
  std::vector<float> q, k, v;
  void add(const Tokens& t, std::size_t token) {
    const Geometry& g = t.g;
    q.insert(q.end(), t.query(token, 0), t.query(token, 0) + g.query_heads * g.head_dim);
    k.insert(k.end(), t.key(token, 0), t.key(token, 0) + g.kv_heads * g.head_dim);
    v.insert(v.end(), t.value(token, 0), t.value(token, 0) + g.kv_heads * g.head_dim);
  }
};

// Where a step's input and output stand: the same addresses in every step, as a captured one needs.
class CacheStep {
 public:
  CacheStep(const Geometry& g, std::size_t batch)
      : g_(g),
        batch_(batch),
        q_(batch * g.query_heads * g.head_dim),
        k_(batch * g.kv_heads * g.head_dim),
        v_(batch * g.kv_heads * g.head_dim),
        out_(batch * g.query_heads * g.head_dim) {}

  void fill(const BatchTokens& t, cuda::Stream stream) {
    cuda::copy_in(q_.data(), t.q.data(), t.q.size() * 4, stream);
    cuda::copy_in(k_.data(), t.k.data(), t.k.size() * 4, stream);
    cuda::copy_in(v_.data(), t.v.data(), t.v.size() * 4, stream);
  }
  template <class Cache>
  void decode(Cache& cache, std::size_t layer, const cuda::Batch& batch, cuda::Stream stream) {
    cache.decode(layer, batch, rows(q_.data(), batch_, g_.query_heads, g_.head_dim),
                 rows(k_.data(), batch_, g_.kv_heads, g_.head_dim),
                 rows(v_.data(), batch_, g_.kv_heads, g_.head_dim),
                 cuda::out_rows(out_.data(), batch_, g_.query_heads, g_.head_dim), stream);
  }
  std::vector<float> out(cuda::Stream stream) const { return downloaded(out_, stream); }

 private:
  Geometry g_;
  std::size_t batch_;
  cuda::Buffer<float> q_, k_, v_, out_;
};

// The largest difference, relative to the largest expected number.
inline double difference(const std::vector<float>& got, const float* expected) {
  double most = 0.0;
  double size = 1e-30;
  for (std::size_t i = 0; i < got.size(); ++i) {
    most = std::max(most, std::abs(static_cast<double>(got[i]) - static_cast<double>(expected[i])));
    size = std::max(size, std::abs(static_cast<double>(expected[i])));
    if (std::isnan(got[i])) return 1e30;
  }
  return most / size;
}

}  // namespace zeromerge::test
