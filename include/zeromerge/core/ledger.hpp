// Counts bytes where they are held: now, and the most there ever were at once.
#pragma once

#include <algorithm>
#include <cstddef>

namespace zeromerge {

class ByteLedger {
 public:
  void add(std::size_t bytes) noexcept {
    held_ += bytes;
    peak_ = std::max(peak_, held_);
  }
  void remove(std::size_t bytes) noexcept { held_ -= bytes; }
  void reset_peak() noexcept { peak_ = held_; }

  std::size_t held() const noexcept { return held_; }
  std::size_t peak() const noexcept { return peak_; }

 private:
  std::size_t held_ = 0;
  std::size_t peak_ = 0;
};

}  // namespace zeromerge
