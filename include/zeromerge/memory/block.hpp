// One block of bytes, 64-byte aligned, counted in a ledger. Large blocks come from the system page by page
// (Linux), because an allocator may keep what is freed to it: here memory that is given up leaves the process
// at once, and growing moves page tables instead of bytes.
#pragma once

#include <cstddef>
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
  static constexpr std::size_t kMapFrom = 16 * 1024;  // from here on whole pages from the system

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

  // At least `bytes` (rounded up to the unit it is taken in); what fits in both sizes is kept. Strong
  // guarantee: on std::bad_alloc nothing has changed. resize(0) frees.
  void resize(std::size_t bytes) {
    const std::size_t wanted = rounded(bytes);
    if (wanted == bytes_) return;
    if (wanted == 0) return release();
#if defined(__linux__)
    if (wanted >= kMapFrom && bytes_ >= kMapFrom) {
      void* moved = mremap(data_, bytes_, wanted, MREMAP_MAYMOVE);
      if (moved == MAP_FAILED) out_of_memory();
      return adopt(static_cast<char*>(moved), wanted);
    }
#endif
    char* fresh = allocate(wanted);
    if (data_ != nullptr) {
      std::memcpy(fresh, data_, bytes_ < wanted ? bytes_ : wanted);
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

  static char* allocate(std::size_t bytes) {
#if defined(__linux__)
    if (bytes >= kMapFrom) {
      void* fresh = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (fresh == MAP_FAILED) out_of_memory();
      return static_cast<char*>(fresh);
    }
#endif
    return static_cast<char*>(::operator new(bytes, std::align_val_t(kAlignment)));
  }

  static void deallocate(char* data, std::size_t bytes) noexcept {
#if defined(__linux__)
    if (bytes >= kMapFrom) {
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
