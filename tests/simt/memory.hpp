// Device memory of the emulation. Addresses given out carry a bit that no address of a process has: what
// follows such a pointer without the device vocabulary, on the host or in a kernel, crashes, as host code
// would on a device. Fresh memory is filled with ones, which read as NaN in every floating-point type.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <new>
#include <vector>

#include "simt/fault.hpp"
#include "simt/shadow.hpp"

namespace zeromerge::simt {

class DeviceMemory {
 public:
  struct Allocation {
    std::byte* data = nullptr;
    std::size_t bytes = 0;
    std::vector<Shadow> shadow;  // one a byte
  };
  struct Found {
    std::byte* data = nullptr;  // null: not device memory
    Shadow* shadow = nullptr;
  };

  void* allocate(std::size_t bytes) {
    constexpr std::size_t kAlignment = 256;  // as cudaMalloc
    const std::size_t rounded = (bytes + kAlignment) / kAlignment * kAlignment;
    auto* data = static_cast<std::byte*>(std::aligned_alloc(kAlignment, rounded));
    if (data == nullptr) throw std::bad_alloc();
    std::memset(data, 0xff, bytes);
    const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(data) | kTag;
    allocations_[address] = {data, bytes, std::vector<Shadow>(bytes)};
    held_ += bytes;
    last_ = nullptr;
    return reinterpret_cast<void*>(address);
  }

  void free(void* pointer) noexcept {
    if (pointer == nullptr) return;
    const auto found = allocations_.find(reinterpret_cast<std::uintptr_t>(pointer));
    if (found == allocations_.end()) {
      std::fputs("emulated device: free of an address that allocate() did not give\n", stderr);
      std::abort();
    }
    held_ -= found->second.bytes;
    std::free(found->second.data);
    allocations_.erase(found);
    last_ = nullptr;
  }

  // Where `bytes` bytes from this device address on really lie.
  Found find(const void* pointer, std::size_t bytes) {
    const auto address = reinterpret_cast<std::uintptr_t>(pointer);
    if (last_ == nullptr || !(address >= last_address_ && address < last_address_ + last_->bytes)) {
      auto after = allocations_.upper_bound(address);
      if (after == allocations_.begin()) return {};
      --after;
      last_address_ = after->first;
      last_ = &after->second;
    }
    const std::uintptr_t offset = address - last_address_;
    if (offset > last_->bytes || bytes > last_->bytes - offset) return {};
    return {last_->data + offset, last_->shadow.data() + offset};
  }

  static bool is_device(const void* pointer) {
    return (reinterpret_cast<std::uintptr_t>(pointer) & kTag) != 0;
  }
  std::size_t held() const { return held_; }
  std::size_t allocations() const { return allocations_.size(); }

 private:
  static constexpr std::uintptr_t kTag = std::uintptr_t{1} << 55;

  std::map<std::uintptr_t, Allocation> allocations_;
  std::uintptr_t last_address_ = 0;
  Allocation* last_ = nullptr;
  std::size_t held_ = 0;
};

}  // namespace zeromerge::simt
