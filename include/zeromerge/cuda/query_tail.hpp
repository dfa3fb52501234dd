// The last queries of a prompt and their log-sum-exp, for a rating at its end; only where a policy asks for
// it.
#pragma once

#include <algorithm>
#include <cstddef>

#include "zeromerge/core/element.hpp"
#include "zeromerge/core/errors.hpp"
#include "zeromerge/cuda/counted.hpp"

namespace zeromerge::cuda {

class QueryTail {
 public:
  QueryTail() = default;
  explicit QueryTail(ByteLedger* ledger) : ledger_(ledger) {}

  // A call of this type will follow; at most `window` tokens stay. Throws Error if it cannot.
  void expect(Element type, std::size_t query_heads, std::size_t head_dim, std::size_t window) {
    if (tokens_ != 0 && type != type_)
      fail("cuda: a prompt's queries came as ", element_name(type_), " and now as ", element_name(type),
           "; keep to one type within a prompt");
    type_ = type;
    window_ = window;
    heads_ = query_heads;
    row_ = query_heads * head_dim * element_size(type);
    if (rows_[0].bytes() >= window * row_) return;
    for (auto& rows : rows_) rows = CountedMemory(window * row_, ledger_);
    for (auto& lse : lse_) lse = CountedMemory(window * query_heads * sizeof(float), ledger_);
  }

  // q [tokens][query_heads][head_dim], lse [tokens][query_heads].
  void append(const void* q, const float* lse, std::size_t tokens, Stream stream) {
    const std::size_t fresh = std::min(tokens, window_);
    const std::size_t old = std::min(tokens_, window_ - fresh);
    const auto* given = static_cast<const unsigned char*>(q);
    const std::size_t sums = heads_ * sizeof(float);  // of a token
    move_bytes(rows_[1].data(), rows_[0].data() + (tokens_ - old) * row_, old * row_, stream);
    move_bytes(lse_[1].data(), lse_[0].data() + (tokens_ - old) * sums, old * sums, stream);
    move_bytes(rows_[1].data() + old * row_, given + (tokens - fresh) * row_, fresh * row_, stream);
    move_bytes(lse_[1].data() + old * sums, lse + (tokens - fresh) * heads_, fresh * sums, stream);
    rows_[0].swap(rows_[1]);
    lse_[0].swap(lse_[1]);
    tokens_ = old + fresh;
  }

  // The stream must have done what read it.
  void clear() noexcept { *this = QueryTail(ledger_); }
  QueryTail copy(Stream stream) const {
    QueryTail other(ledger_);
    for (int i : {0, 1}) {
      other.rows_[i] = rows_[i].copy(stream);
      other.lse_[i] = lse_[i].copy(stream);
    }
    other.type_ = type_;
    other.window_ = window_;
    other.heads_ = heads_;
    other.row_ = row_;
    other.tokens_ = tokens_;
    return other;
  }
  std::size_t bytes() const noexcept {
    return rows_[0].bytes() + rows_[1].bytes() + lse_[0].bytes() + lse_[1].bytes();
  }
  std::size_t tokens() const noexcept { return tokens_; }
  Element type() const noexcept { return type_; }
  const void* q() const noexcept { return rows_[0].data(); }
  const float* lse() const noexcept { return reinterpret_cast<const float*>(lse_[0].data()); }

 private:
  static void move_bytes(void* to, const void* from, std::size_t bytes, Stream stream) {
    if (bytes != 0) copy_within(to, from, bytes, stream);
  }

  ByteLedger* ledger_ = nullptr;
  CountedMemory rows_[2];  // [window][query_heads][head_dim]; the second takes the next call's
  CountedMemory lse_[2];   // [window][query_heads] floats
  Element type_ = Element::f32;
  std::size_t window_ = 0;
  std::size_t heads_ = 0;  // of a token
  std::size_t row_ = 0;    // bytes of a token
  std::size_t tokens_ = 0;
};

}  // namespace zeromerge::cuda
