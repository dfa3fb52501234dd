// Memory for the prefill kernels of a caller that works on blocks of query rows of its own.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "zeromerge/kernels/aligned.hpp"
#include "zeromerge/kernels/kernels.hpp"

namespace zeromerge::kernels {

// As many rows as keep a strip of logits near.
inline std::size_t strip_rows(std::size_t entries) noexcept {
  constexpr std::size_t kFloats = std::size_t{1} << 19;
  return std::clamp<std::size_t>(kFloats / std::max<std::size_t>(entries, 1) / 8 * 8, 8, kRowBlock);
}

// A head's keys for column_maxima().
class ReadyKeys {
 public:
  ReadyKeys() = default;
  ReadyKeys(const WideRows& keys, std::size_t entries)
      : size_(keys.size), f32_(keys.f32), panels_(round_up(entries, kTile) * panel_depth(keys.size)) {
    make_panels(keys, entries, panels_.data());
  }
  KeyPanels view() const noexcept { return {panels_.data(), size_, f32_}; }

 private:
  std::size_t size_ = 0;
  bool f32_ = false;
  AlignedFloats panels_;
};

class PrefillBuffer {
 public:
  // Blocks of at most `rows` rows, of a head of row_size channels and `entries` entries. Strips: with column
  // statistics.
  PrefillBuffer(std::size_t rows, std::size_t row_size, std::size_t entries, bool strips)
      : stride_(row_size + kQueryTail),
        queries_(rows * stride_),
        rows_(rows * stride_),
        out_(rows * row_size),
        limit_(rows),
        sink_(rows),
        wide_(row_size * kKeyBlock),
        logits_(kRowBlock * kKeyBlock),
        sums_(3 * kRowBlock),
        strip_stride_(strips ? round_up(entries, kKeyBlock) + kTile : 0),
        strip_(rows * strip_stride_) {
    std::fill_n(queries_.data(), rows * stride_, 0.0f);
  }

  float* query(std::size_t row) noexcept { return queries_.data() + row * stride_; }
  float* out() noexcept { return out_.data(); }  // [rows][row_size]
  std::size_t* limit() noexcept { return limit_.data(); }
  float* sink() noexcept { return sink_.data(); }

  PrefillRows rows(std::size_t count, const float* bias, bool sinks, float softcap) const noexcept {
    return {queries_.data(), stride_, count, limit_.data(), bias, sinks ? sink_.data() : nullptr, softcap};
  }
  PrefillScratch scratch() noexcept {
    return {wide_.data(),
            rows_.data(),
            logits_.data(),
            sums_.data(),
            sums_.data() + kRowBlock,
            sums_.data() + 2 * kRowBlock,
            strip_.data(),
            strip_stride_};
  }

 private:
  std::size_t stride_;
  AlignedFloats queries_;
  AlignedFloats rows_;
  AlignedFloats out_;
  std::vector<std::size_t> limit_;
  std::vector<float> sink_;
  AlignedFloats wide_;
  AlignedFloats logits_;
  std::vector<float> sums_;  // maximum, sum, factor
  std::size_t strip_stride_;
  AlignedFloats strip_;
};

}  // namespace zeromerge::kernels
