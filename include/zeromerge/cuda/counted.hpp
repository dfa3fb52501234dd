// Device memory whose bytes count in a cache's ledger as long as it is held.
#pragma once

#include <cstddef>
#include <utility>

#include "zeromerge/core/ledger.hpp"
#include "zeromerge/kernels/cuda/runtime.hpp"

namespace zeromerge::cuda {

class CountedMemory {
 public:
  CountedMemory() = default;
  // Not initialised. Throws Error where there is no memory.
  CountedMemory(std::size_t bytes, ByteLedger* ledger) : memory_(bytes), ledger_(ledger) {
    ledger_->add(bytes);
  }
  CountedMemory(CountedMemory&& other) noexcept { swap(other); }
  CountedMemory& operator=(CountedMemory&& other) noexcept {
    swap(other);
    return *this;
  }
  ~CountedMemory() {
    if (ledger_ != nullptr) ledger_->remove(memory_.bytes());
  }
  void swap(CountedMemory& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(ledger_, other.ledger_);
  }

  // The same bytes on the same ledger, when the stream has come so far.
  CountedMemory copy(Stream stream) const {
    if (bytes() == 0) return {};
    CountedMemory other(bytes(), ledger_);
    copy_within(other.data(), data(), bytes(), stream);
    return other;
  }

  unsigned char* data() const noexcept { return memory_.data(); }
  std::size_t bytes() const noexcept { return memory_.bytes(); }

 private:
  Buffer<unsigned char> memory_;
  ByteLedger* ledger_ = nullptr;
};

}  // namespace zeromerge::cuda
