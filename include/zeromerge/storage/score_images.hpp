// The scores of a head before each token of the newest decode call: every query changes every score, so that
// no record of what changed would be shorter.
#pragma once

#include <algorithm>
#include <cstddef>

#include "zeromerge/memory/block.hpp"

namespace zeromerge {

class ScoreImages {
 public:
  explicit ScoreImages(ByteLedger* ledger) noexcept : block_(ledger) {}
  explicit ScoreImages(const ScoreImages&) = default;
  ScoreImages(ScoreImages&&) noexcept = default;
  ScoreImages& operator=(ScoreImages&&) noexcept = default;

  std::size_t bytes() const noexcept { return block_.bytes(); }
  void count_in(ByteLedger* ledger) noexcept { block_.count_in(ledger); }
  std::size_t count() const noexcept { return count_; }

  // A call begins: those of the last one are forgotten, room is made for `images` of `entries`. Throws
  // std::bad_alloc with nothing changed that matters.
  void begin(std::size_t images, std::size_t entries) {
    const std::size_t wanted = images * entries * sizeof(float);
    count_ = 0;
    if (block_.bytes() < wanted) block_.resize(wanted);
    entries_ = entries;
  }
  void take(const float* score, std::size_t entries) noexcept {
    std::copy_n(score, entries, image(count_));
    ++count_;
  }
  // The scores before the last `tokens` tokens, of which as many images go: 1 to count().
  void take_back(std::size_t tokens, float* score, std::size_t entries) noexcept {
    count_ -= tokens;
    std::copy_n(image(count_), entries, score);
  }
  void forget() noexcept { count_ = 0; }
  void release() noexcept {
    block_.resize(0);
    count_ = entries_ = 0;
  }

 private:
  float* image(std::size_t i) const noexcept {
    return reinterpret_cast<float*>(block_.data()) + i * entries_;
  }

  std::size_t count_ = 0;
  std::size_t entries_ = 0;
  Block block_;  // [images][entries]
};

}  // namespace zeromerge
