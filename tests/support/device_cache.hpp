// Feeds the same tokens to a cache on the device, or its emulation, as to one on the host.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include "support/sequence.hpp"
#include "zeromerge/cuda/make_cache.hpp"

namespace zeromerge::test {

// A host array on the device.
template <class T>
class OnDevice {
 public:
  OnDevice(const T* data, std::size_t count) : buffer_(count) {
    cuda::copy_in(buffer_.data(), data, buffer_.bytes(), {});
  }
  explicit OnDevice(const std::vector<T>& from) : OnDevice(from.data(), from.size()) {}
  explicit OnDevice(std::size_t count) : buffer_(count) {}
  T* data() const { return buffer_.data(); }
  std::vector<T> host(cuda::Stream stream = {}) const {
    std::vector<T> to(buffer_.size());
    cuda::copy_out(to.data(), buffer_.data(), buffer_.bytes(), stream);
    cuda::synchronise(stream);
    return to;
  }

 private:
  cuda::Buffer<T> buffer_;
};

inline RowView at(const OnDevice<float>& data, const RowView& shape) {
  RowView view = shape;
  view.data = data.data();
  return view;
}

// Tokens [first, first + n) as a prompt's call; returns their attention.
template <class Cache>
std::vector<float> prefill_device(Cache& cache, std::size_t layer, std::size_t sequence, const Tokens& t,
                                  std::size_t first, std::size_t n, cuda::Stream stream = {}) {
  const Geometry& g = t.g;
  const OnDevice<float> q(t.query(first, 0), n * g.query_heads * g.head_dim);
  const OnDevice<float> k(t.key(first, 0), n * g.kv_heads * g.head_dim);
  const OnDevice<float> v(t.value(first, 0), n * g.kv_heads * g.head_dim);
  const OnDevice<float> out(n * g.query_heads * g.head_dim);
  cache.prefill(layer, sequence, at(q, t.queries(first, n)), at(k, t.keys(first, n)),
                at(v, t.values(first, n)), cuda::out_rows(out.data(), n, g.query_heads, g.head_dim), stream);
  return out.host(stream);
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
class StepBuffers {
 public:
  StepBuffers(const Geometry& g, std::size_t batch)
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
  std::vector<float> out(cuda::Stream stream) const { return out_.host(stream); }

 private:
  Geometry g_;
  std::size_t batch_;
  OnDevice<float> q_, k_, v_, out_;
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
