// The last query rows of a prompt, scaled, in f16: what a bounded-tail score reads once when the prompt ends.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "zeromerge/kernels/kernels.hpp"
#include "zeromerge/memory/block.hpp"

namespace zeromerge {

class QueryWindow {
 public:
  // Keeps the last `most` tokens; per token and kv head `width` elements (group * padded head_dim).
  QueryWindow(std::size_t most, std::size_t kv_heads, std::size_t width, ByteLedger* ledger)
      : most_(most), heads_(kv_heads), width_(width), data_(ledger) {}

  std::size_t tokens() const noexcept { return tokens_; }
  std::size_t bytes() const noexcept { return data_.bytes(); }

  // Room for the tokens to come; the only step that allocates.
  void reserve(std::size_t more) {
    const std::size_t wanted = std::min(most_, tokens_ + more);
    if (wanted <= capacity_) return;
    Block grown = data_.sibling();
    grown.resize(heads_ * wanted * width_ * sizeof(f16));
    for (std::size_t h = 0; h < heads_; ++h)
      std::memcpy(at(grown, wanted, h), at(data_, capacity_, h), tokens_ * width_ * sizeof(f16));
    data_ = std::move(grown);
    capacity_ = wanted;
  }

  // stacked: f32 [kv_heads][tokens][width].
  void append(const float* stacked, std::size_t tokens) noexcept {
    const std::size_t fresh = std::min(tokens, most_);
    const std::size_t kept = std::min(tokens_, most_ - fresh);
    for (std::size_t h = 0; h < heads_; ++h) {
      f16* to = at(data_, capacity_, h);
      std::memmove(to, to + (tokens_ - kept) * width_, kept * width_ * sizeof(f16));
      kernels::narrow(stacked + (h * tokens + tokens - fresh) * width_, fresh * width_, to + kept * width_);
    }
    tokens_ = kept + fresh;
  }

  // The last `tokens` of them in f32, [kv_heads][tokens][width].
  void read_last(std::size_t tokens, float* stacked) const noexcept {
    for (std::size_t h = 0; h < heads_; ++h)
      kernels::widen(at(data_, capacity_, h) + (tokens_ - tokens) * width_, tokens * width_, 1.0f,
                     stacked + h * tokens * width_);
  }

  void drop_last(std::size_t tokens) noexcept { tokens_ -= std::min(tokens, tokens_); }
  void clear() noexcept {
    tokens_ = capacity_ = 0;
    data_.resize(0);
  }

 private:
  f16* at(const Block& block, std::size_t capacity, std::size_t head) const noexcept {
    return reinterpret_cast<f16*>(block.data()) + head * capacity * width_;
  }

  std::size_t most_;
  std::size_t heads_;
  std::size_t width_;
  std::size_t tokens_ = 0;
  std::size_t capacity_ = 0;
  Block data_;  // [kv_heads][capacity][width]
};

}  // namespace zeromerge
