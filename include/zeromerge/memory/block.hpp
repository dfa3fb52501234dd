// One block of bytes, 64-byte aligned, counted in a ledger. Large blocks come from the system page by page
// (Linux), because an allocator may keep what is freed to it: here memory that is given up leaves the process
// at once, and growing moves page tables instead of bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "zeromerge/core/ledger.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace zeromerge {

class Block {
 public:
  static constexpr std::size_t kAlignment = 64;
  static constexpr std::size_t kPage = 4096;
  static constexpr std::size_t kMapFrom = 16 * 1024;         // from here on whole pages from the system
  static constexpr std::size_t kHugePage = 2 * 1024 * 1024;  // from here on aligned to it, and asked for

  Block() = default;
  explicit Block(ByteLedger* ledger) noexcept : ledger_(ledger) {}
  Block(Block&& other) noexcept { swap(other); }
  Block& operator=(Block&& other) noexcept {
    Block moved(std::move(other));
    swap(moved);
    return *this;
  }
  ~Block() { release(); }

  // An empty block on the same ledger.
  Block sibling() const noexcept { return Block(ledger_); }

  char* data() const noexcept { return data_; }
  std::size_t bytes() const noexcept { return bytes_; }

  // At least `bytes` (rounded up to the unit it is taken in); what fits in both sizes is kept, what is new
  // reads as 0 or as bytes that were once written. Strong guarantee: on std::bad_alloc nothing has changed.
  // resize(0) frees.
  void resize(std::size_t bytes) {
    const std::size_t wanted = rounded(bytes);
    if (wanted == bytes_) return;
    if (wanted == 0) return release();
    if (mapped(wanted) && mapped(bytes_)) return adopt(remap(wanted), wanted);
    char* fresh = allocate(wanted);
    const std::size_t kept = bytes_ < wanted ? bytes_ : wanted;
    if (!mapped(wanted)) std::memset(fresh + kept, 0, wanted - kept);  // mapped pages are 0 already
    if (data_ != nullptr) {
      std::memcpy(fresh, data_, kept);
      deallocate(data_, bytes_);
    }
    adopt(fresh, wanted);
  }

  void swap(Block& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(ledger_, other.ledger_);
  }

  static constexpr std::size_t rounded(std::size_t bytes) noexcept {
    const std::size_t unit = bytes >= kMapFrom ? kPage : kAlignment;
    return (bytes + unit - 1) / unit * unit;
  }

 private:
  [[noreturn, gnu::cold]] static void out_of_memory() {
#if defined(__cpp_exceptions)
    throw std::bad_alloc();
#else
    std::abort();
#endif
  }

#if defined(__linux__)
  static constexpr bool mapped(std::size_t bytes) noexcept { return bytes >= kMapFrom; }

  static char* checked(void* address) {
    if (address == MAP_FAILED) out_of_memory();
    return static_cast<char*>(address);
  }

  // Addresses for `bytes`, aligned to huge pages, with nothing behind them yet.
  static char* reserve_aligned(std::size_t bytes) {
    constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    char* all = checked(mmap(nullptr, bytes + kHugePage, PROT_NONE, kFlags, -1, 0));
    const std::size_t before = (kHugePage - reinterpret_cast<std::uintptr_t>(all) % kHugePage) % kHugePage;
    if (before != 0) munmap(all, before);
    munmap(all + before + bytes, kHugePage - before);
    return all + before;
  }

  static char* map(std::size_t bytes) {
    constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS;
    if (bytes < kHugePage) return checked(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, kFlags, -1, 0));
    char* at = reserve_aligned(bytes);
    checked(mmap(at, bytes, PROT_READ | PROT_WRITE, kFlags | MAP_FIXED, -1, 0));
    madvise(at, bytes, MADV_HUGEPAGE);
    return at;
  }

  // The same pages at a size of `wanted`, elsewhere if they must move.
  char* remap(std::size_t wanted) {
    if (wanted < kHugePage) return checked(mremap(data_, bytes_, wanted, MREMAP_MAYMOVE));
    const bool aligned = reinterpret_cast<std::uintptr_t>(data_) % kHugePage == 0;
    char* at = data_;
    if (!aligned || mremap(data_, bytes_, wanted, 0) == MAP_FAILED) {
      at = reserve_aligned(wanted);
      if (mremap(data_, bytes_, wanted, MREMAP_MAYMOVE | MREMAP_FIXED, at) == MAP_FAILED) {
        munmap(at, wanted);
        out_of_memory();
      }
    }
    madvise(at, wanted, MADV_HUGEPAGE);
    return at;
  }
#else
  static constexpr bool mapped(std::size_t) noexcept { return false; }
  static char* map(std::size_t) { return nullptr; }
  char* remap(std::size_t) { return nullptr; }
#endif

  static char* allocate(std::size_t bytes) {
    if (mapped(bytes)) return map(bytes);
    return static_cast<char*>(::operator new(bytes, std::align_val_t(kAlignment)));
  }

  static void deallocate(char* data, std::size_t bytes) noexcept {
#if defined(__linux__)
    if (mapped(bytes)) {
      munmap(data, bytes);
      return;
    }
#endif
    ::operator delete(data, std::align_val_t(kAlignment));
  }

  // Takes over memory that replaces the old block, which is already gone.
  void adopt(char* data, std::size_t bytes) noexcept {
    if (ledger_ != nullptr) {
      ledger_->remove(bytes_);
      ledger_->add(bytes);
    }
    data_ = data;
    bytes_ = bytes;
  }

  void release() noexcept {
    if (data_ == nullptr) return;
    deallocate(data_, bytes_);
    if (ledger_ != nullptr) ledger_->remove(bytes_);
    data_ = nullptr;
    bytes_ = 0;
  }

  char* data_ = nullptr;
  std::size_t bytes_ = 0;
  ByteLedger* ledger_ = nullptr;
};

}  // namespace zeromerge
