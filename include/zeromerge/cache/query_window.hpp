// The last query rows of a prompt, scaled, in f16, and the log-sum-exp of each: what a bounded-tail score
// reads once when the prompt ends. The log-sum-exp comes from the attention pass, so that scoring costs one
// product and no softmax.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "zeromerge/kernels/kernels.hpp"
#include "zeromerge/memory/block.hpp"

namespace zeromerge {

class QueryWindow {
 public:
  // Keeps the last `most` tokens; per token and kv head `group` rows of `stride` elements (head_dim, padded).
  QueryWindow(std::size_t most, std::size_t kv_heads, std::size_t group, std::size_t stride,
              ByteLedger* ledger)
      : most_(most), heads_(kv_heads), rows_{group * stride, ledger}, lse_{group, ledger} {}

  std::size_t tokens() const noexcept { return tokens_; }
  std::size_t bytes() const noexcept { return rows_.data.bytes() + lse_.data.bytes(); }

  // Room for the tokens to come; the only step that allocates.
  void reserve(std::size_t more) {
    const std::size_t wanted = std::min(most_, tokens_ + more);
    if (wanted <= capacity_) return;
    Block rows = rows_.grown(heads_, tokens_, capacity_, wanted);
    Block lse = lse_.grown(heads_, tokens_, capacity_, wanted);
    rows_.data = std::move(rows);
    lse_.data = std::move(lse);
    capacity_ = wanted;
  }

  // stacked: f32 [kv_heads][tokens][group * stride]; lse: [kv_heads][tokens][group].
  void append(const float* stacked, const float* lse, std::size_t tokens) noexcept {
    const std::size_t fresh = std::min(tokens, most_);
    const std::size_t kept = std::min(tokens_, most_ - fresh);
    for (std::size_t h = 0; h < heads_; ++h) {
      const std::size_t from = h * tokens + tokens - fresh;
      rows_.shift(h, capacity_, tokens_ - kept, kept);
      lse_.shift(h, capacity_, tokens_ - kept, kept);
      kernels::narrow(stacked + from * rows_.width, fresh * rows_.width, rows_.at(h, capacity_, kept));
      std::memcpy(lse_.at(h, capacity_, kept), lse + from * lse_.width, fresh * lse_.width * sizeof(float));
    }
    tokens_ = kept + fresh;
  }

  // The last `tokens` of them: f32 [kv_heads][tokens][group * stride] and [kv_heads][tokens][group].
  void read_last(std::size_t tokens, float* stacked, float* lse) const noexcept {
    for (std::size_t h = 0; h < heads_; ++h) {
      kernels::widen(rows_.at(h, capacity_, tokens_ - tokens), tokens * rows_.width, 1.0f,
                     stacked + h * tokens * rows_.width);
      std::memcpy(lse + h * tokens * lse_.width, lse_.at(h, capacity_, tokens_ - tokens),
                  tokens * lse_.width * sizeof(float));
    }
  }

  void drop_last(std::size_t tokens) noexcept { tokens_ -= std::min(tokens, tokens_); }
  void clear() noexcept {
    tokens_ = capacity_ = 0;
    rows_.data.resize(0);
    lse_.data.resize(0);
  }

 private:
  // [kv_heads][capacity][width] of T.
  template <class T>
  struct Plane {
    Plane(std::size_t w, ByteLedger* ledger) : width(w), data(ledger) {}
    std::size_t width;
    Block data;

    static T* in(const Block& block, std::size_t element) noexcept {
      return reinterpret_cast<T*>(block.data()) + element;
    }
    T* at(std::size_t head, std::size_t capacity, std::size_t token) const noexcept {
      return in(data, (head * capacity + token) * width);
    }
    void shift(std::size_t head, std::size_t capacity, std::size_t by, std::size_t count) noexcept {
      std::memmove(at(head, capacity, 0), at(head, capacity, by), count * width * sizeof(T));
    }
    Block grown(std::size_t heads, std::size_t tokens, std::size_t capacity, std::size_t wanted) const {
      Block larger = data.sibling();
      larger.resize(heads * wanted * width * sizeof(T));
      for (std::size_t h = 0; tokens != 0 && h < heads; ++h)
        std::memcpy(in(larger, h * wanted * width), at(h, capacity, 0), tokens * width * sizeof(T));
      return larger;
    }
  };

  std::size_t most_;
  std::size_t heads_;
  std::size_t tokens_ = 0;
  std::size_t capacity_ = 0;
  Plane<f16> rows_;
  Plane<float> lse_;
};

}  // namespace zeromerge
