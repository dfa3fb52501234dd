// What a second reading of a prompt finds out (KVzip, arXiv 2505.23416): the most attention that each of its
// entries gets from any query of the reading and any query head of its group.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>

#include "zeromerge/memory/block.hpp"

namespace zeromerge {

class SecondReading {
 public:
  explicit SecondReading(ByteLedger* ledger) : block_(ledger) {}

  bool reading() const noexcept { return reading_; }
  std::size_t entries() const noexcept { return entries_; }  // of a head, that are read again
  // From which length on tokens belong to the reading and not to the prompt.
  std::size_t begun() const noexcept { return reading_ ? entries_ : static_cast<std::size_t>(-1); }
  float* maxima() noexcept { return reinterpret_cast<float*>(block_.data()); }  // [heads][entries]
  // What is known by now; empty: nothing.
  std::span<const float> noted() const noexcept {
    return {reinterpret_cast<const float*>(block_.data()), heads_ * entries_};
  }
  std::size_t bytes() const noexcept { return block_.bytes(); }

  // Goes on with what an earlier reading of the same entries found. Throws std::bad_alloc with nothing
  // changed.
  void begin(std::size_t heads, std::size_t entries) {
    if (heads_ != heads || entries_ != entries) {
      Block fresh = block_.sibling();
      fresh.resize(heads * entries * sizeof(float));
      block_.swap(fresh);
      std::fill_n(maxima(), heads * entries, 0.0f);
      heads_ = heads;
      entries_ = entries;
    }
    reading_ = true;
  }
  void end() noexcept { reading_ = false; }
  // The sequence has been cut to `tokens`: within its prompt, nothing holds any more.
  void truncate(std::size_t tokens) noexcept {
    if (tokens < entries_) clear();
  }
  void count_in(ByteLedger* ledger) noexcept { block_.count_in(ledger); }
  void clear() noexcept {
    heads_ = entries_ = 0;
    reading_ = false;
    block_.resize(0);
  }

 private:
  std::size_t heads_ = 0;
  std::size_t entries_ = 0;
  bool reading_ = false;
  Block block_;
};

}  // namespace zeromerge
