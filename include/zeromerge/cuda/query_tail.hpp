// The last queries of a prompt and their log-sum-exp, for a rating at its end; only where a policy asks for
// it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>

#include "zeromerge/core/element.hpp"
#include "zeromerge/core/errors.hpp"
#include "zeromerge/kernels/cuda/runtime.hpp"

namespace zeromerge::cuda {

class QueryTail {
 public:
  // Of a call: q [tokens][query_heads][head_dim], lse [tokens][query_heads]; at most `window` tokens stay.
  void append(const void* q, const float* lse, Element type, std::size_t tokens, std::size_t query_heads,
              std::size_t head_dim, std::size_t window, Stream stream) {
    const std::size_t row = query_heads * head_dim * element_size(type);
    if (tokens_ != 0 && type != type_)
      fail("cuda: a prompt's queries came as ", element_name(type_), " and now as ", element_name(type),
           "; keep to one type within a prompt");
    type_ = type;
    if (rows_[0].size() < window * row) *this = QueryTail(window, row, query_heads, type);
    const std::size_t fresh = std::min(tokens, window);
    const std::size_t old = std::min(tokens_, window - fresh);
    copy(rows_[1].data(), rows_[0].data() + (tokens_ - old) * row, old * row, stream);
    copy(lse_[1].data(), lse_[0].data() + (tokens_ - old) * query_heads, old * query_heads * 4, stream);
    copy(rows_[1].data() + old * row, static_cast<const unsigned char*>(q) + (tokens - fresh) * row,
         fresh * row, stream);
    copy(lse_[1].data() + old * query_heads, lse + (tokens - fresh) * query_heads, fresh * query_heads * 4,
         stream);
    std::swap(rows_[0], rows_[1]);
    std::swap(lse_[0], lse_[1]);
    tokens_ = old + fresh;
  }

  QueryTail() = default;

  void clear() noexcept { tokens_ = 0; }
  std::size_t tokens() const noexcept { return tokens_; }
  Element type() const noexcept { return type_; }
  const void* q() const noexcept { return rows_[0].data(); }
  const float* lse() const noexcept { return lse_[0].data(); }

 private:
  QueryTail(std::size_t window, std::size_t row, std::size_t query_heads, Element type)
      : rows_{Buffer<unsigned char>(window * row), Buffer<unsigned char>(window * row)},
        lse_{Buffer<float>(window * query_heads), Buffer<float>(window * query_heads)},
        type_(type) {}

  static void copy(void* to, const void* from, std::size_t bytes, Stream stream) {
    if (bytes != 0) copy_within(to, from, bytes, stream);
  }

  Buffer<unsigned char> rows_[2];  // [window][query_heads][head_dim]; the second takes the next call's
  Buffer<float> lse_[2];           // [window][query_heads]
  Element type_ = Element::f32;
  std::size_t tokens_ = 0;
};

}  // namespace zeromerge::cuda
