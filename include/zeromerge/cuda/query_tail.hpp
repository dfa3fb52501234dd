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
  // A call of this type will follow; at most `window` tokens stay. Throws Error if it cannot.
  void expect(Element type, std::size_t query_heads, std::size_t head_dim, std::size_t window) {
    if (tokens_ != 0 && type != type_)
      fail("cuda: a prompt's queries came as ", element_name(type_), " and now as ", element_name(type),
           "; keep to one type within a prompt");
    type_ = type;
    window_ = window;
    heads_ = query_heads;
    row_ = query_heads * head_dim * element_size(type);
    if (rows_[0].size() >= window * row_) return;
    for (auto& rows : rows_) rows = Buffer<unsigned char>(window * row_);
    for (auto& lse : lse_) lse = Buffer<float>(window * query_heads);
  }

  // q [tokens][query_heads][head_dim], lse [tokens][query_heads].
  void append(const void* q, const float* lse, std::size_t tokens, Stream stream) {
    const std::size_t fresh = std::min(tokens, window_);
    const std::size_t old = std::min(tokens_, window_ - fresh);
    const auto* given = static_cast<const unsigned char*>(q);
    copy(rows_[1].data(), rows_[0].data() + (tokens_ - old) * row_, old * row_, stream);
    copy(lse_[1].data(), lse_[0].data() + (tokens_ - old) * heads_, old * heads_ * 4, stream);
    copy(rows_[1].data() + old * row_, given + (tokens - fresh) * row_, fresh * row_, stream);
    copy(lse_[1].data() + old * heads_, lse + (tokens - fresh) * heads_, fresh * heads_ * 4, stream);
    std::swap(rows_[0], rows_[1]);
    std::swap(lse_[0], lse_[1]);
    tokens_ = old + fresh;
  }

  void clear() noexcept { tokens_ = 0; }
  std::size_t tokens() const noexcept { return tokens_; }
  Element type() const noexcept { return type_; }
  const void* q() const noexcept { return rows_[0].data(); }
  const float* lse() const noexcept { return lse_[0].data(); }

 private:
  static void copy(void* to, const void* from, std::size_t bytes, Stream stream) {
    if (bytes != 0) copy_within(to, from, bytes, stream);
  }

  Buffer<unsigned char> rows_[2];  // [window][query_heads][head_dim]; the second takes the next call's
  Buffer<float> lse_[2];           // [window][query_heads]
  Element type_ = Element::f32;
  std::size_t window_ = 0;
  std::size_t heads_ = 0;  // of a token
  std::size_t row_ = 0;    // bytes of a token
  std::size_t tokens_ = 0;
};

}  // namespace zeromerge::cuda
