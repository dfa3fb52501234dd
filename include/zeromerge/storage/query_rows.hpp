// A layer's queries of the newest tokens of a prompt, kept until the prompt ends for policies that look at
// them again. In f16, scaled by the attention scale. Beside each stands its local sum, taken when the prompt
// was attended to: the log, base 2, of the sum of exponentials over what it saw, entry 0 aside, which is the
// sink of attention and would drown the rest.
#pragma once

#include <cstddef>

#include "zeromerge/core/rows.hpp"
#include "zeromerge/kernels/read_row.hpp"
#include "zeromerge/memory/block.hpp"

namespace zeromerge {

class QueryRows {
 public:
  QueryRows(std::size_t query_heads, std::size_t head_dim, float scale, ByteLedger* ledger)
      : query_heads_(query_heads), head_dim_(head_dim), scale_(scale), block_(ledger), local_(ledger) {}

  std::size_t tokens() const noexcept { return tokens_; }
  std::size_t bytes() const noexcept { return block_.bytes() + local_.bytes(); }

  // Room for `tokens` more. Throws std::bad_alloc with nothing changed.
  void reserve(std::size_t tokens) {
    const std::size_t rows = (tokens_ + tokens) * query_heads_;
    const std::size_t wanted = rows * head_dim_ * sizeof(f16);
    if (block_.bytes() < wanted) block_.resize(wanted);
    if (local_.bytes() < rows * sizeof(float)) local_.resize(rows * sizeof(float));
  }

  // Behind what is there; room must have been reserved. Returns where the local sums of these tokens are to
  // be written: [tokens][query_heads].
  float* append(const RowView& q) noexcept {
    float row[kMaxHeadDim];
    for (std::size_t t = 0; t < q.tokens; ++t)
      for (std::size_t h = 0; h < query_heads_; ++h) {
        detail::read_row(q.row(t, h), q.type, head_dim_, scale_, row);
        kernels::narrow(row, head_dim_, data() + ((tokens_ + t) * query_heads_ + h) * head_dim_);
      }
    float* local = sums() + tokens_ * query_heads_;
    tokens_ += q.tokens;
    return local;
  }

  // A query times the attention scale and `factor`, as f32 [head_dim].
  void read(std::size_t token, std::size_t head, float factor, float* out) const noexcept {
    kernels::widen(data() + (token * query_heads_ + head) * head_dim_, head_dim_, factor, out);
  }

  float local_sum(std::size_t token, std::size_t head) const noexcept {
    return sums()[token * query_heads_ + head];
  }

  // Forgets the last `tokens`.
  void drop_last(std::size_t tokens) noexcept { tokens_ -= tokens < tokens_ ? tokens : tokens_; }
  void count_in(ByteLedger* ledger) noexcept {
    block_.count_in(ledger);
    local_.count_in(ledger);
  }
  void clear() noexcept {
    tokens_ = 0;
    block_.resize(0);
    local_.resize(0);
  }

 private:
  float* sums() const noexcept { return reinterpret_cast<float*>(local_.data()); }
  f16* data() const noexcept { return reinterpret_cast<f16*>(block_.data()); }

  std::size_t query_heads_;
  std::size_t head_dim_;
  float scale_;
  std::size_t tokens_ = 0;
  Block block_;  // [tokens][query_heads][head_dim]
  Block local_;  // [tokens][query_heads]
};

}  // namespace zeromerge
