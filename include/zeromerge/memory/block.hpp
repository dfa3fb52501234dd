// One block of bytes, 64-byte aligned, counted in a ledger. Blocks of many pages come from the system page by
// page (Linux), the smaller of them through an arena, because an allocator may keep what is freed to it: here
// memory that is given up leaves the process, and growing a large block moves page tables instead of bytes.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "zeromerge/core/ledger.hpp"
#include "zeromerge/memory/arena.hpp"

namespace zeromerge {

class Block {
 public:
  static constexpr std::size_t kAlignment = 64;
  static constexpr std::size_t kPage = 4096;
  static constexpr std::size_t kPagesFrom = 16 * 1024;      // from here on whole pages, of an arena
  static constexpr std::size_t kMapFrom = 2 * 1024 * 1024;  // from here on a mapping of its own

  Block() = default;
  explicit Block(ByteLedger* ledger) noexcept : ledger_(ledger) {}
  Block(Block&& other) noexcept { swap(other); }
  // The same bytes, on the same ledger. Throws std::bad_alloc.
  explicit Block(const Block& other) : ledger_(other.ledger_) {
    resize(other.bytes_);
    if (bytes_ != 0) std::memcpy(data_, other.data_, bytes_);
  }
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
  // reads as 0 or as bytes that were once written here. Strong guarantee: on std::bad_alloc nothing has
  // changed. resize(0) frees.
  void resize(std::size_t bytes) {
    const std::size_t wanted = rounded(bytes);
    if (wanted == bytes_) return;
    if (wanted == 0) return release();
    const std::size_t kept = bytes_ < wanted ? bytes_ : wanted;
    char* data = resized(wanted);
    if (data == nullptr) {
      data = allocate(wanted);
      if (data_ != nullptr) {
        std::memcpy(data, data_, kept);
        deallocate(data_, bytes_);
      }
    }
    if (!mapped(wanted)) std::memset(data + kept, 0, wanted - kept);  // a mapping is 0 already
    adopt(data, wanted);
  }

  void swap(Block& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(ledger_, other.ledger_);
  }

  // From now on these bytes count in another ledger.
  void count_in(ByteLedger* ledger) noexcept {
    if (ledger_ != nullptr) ledger_->remove(bytes_);
    ledger_ = ledger;
    if (ledger_ != nullptr) ledger_->add(bytes_);
  }

  // What a block of so many bytes takes; and blocks of about so many, on average.
  static constexpr std::size_t rounded(std::size_t bytes) noexcept {
    return (bytes + unit(bytes) - 1) / unit(bytes) * unit(bytes);
  }
  static constexpr std::size_t likely(std::size_t bytes) noexcept {
    return bytes == 0 ? 0 : bytes + unit(bytes) / 2;
  }
  using Sizing = std::size_t (*)(std::size_t) noexcept;

 private:
  static constexpr std::size_t unit(std::size_t bytes) noexcept {
    return bytes >= kPagesFrom ? kPage : kAlignment;
  }
  [[noreturn, gnu::cold]] static void out_of_memory() {
#if defined(__cpp_exceptions)
    throw std::bad_alloc();
#else
    std::abort();
#endif
  }

#if defined(__linux__)
  static constexpr bool mapped(std::size_t bytes) noexcept { return bytes >= kMapFrom; }
  static constexpr bool in_arena(std::size_t bytes) noexcept { return bytes >= kPagesFrom && !mapped(bytes); }

  // This block at another size without copying, or null.
  char* resized(std::size_t wanted) {
    if (in_arena(bytes_) && in_arena(wanted))
      return Arena::shared().resize(data_, bytes_, wanted) ? data_ : nullptr;
    return mapped(bytes_) && mapped(wanted) ? pages::remap(data_, bytes_, wanted) : nullptr;
  }

  static char* allocate(std::size_t bytes) {
    if (bytes < kPagesFrom) return static_cast<char*>(::operator new(bytes, std::align_val_t(kAlignment)));
    char* at = mapped(bytes) ? pages::map(bytes) : Arena::shared().take(bytes);
    if (at == nullptr) out_of_memory();
    return at;
  }

  static void deallocate(char* data, std::size_t bytes) noexcept {
    if (bytes < kPagesFrom) return ::operator delete(data, std::align_val_t(kAlignment));
    if (mapped(bytes)) return pages::unmap(data, bytes);
    Arena::shared().give(data, bytes);
  }
#else
  static constexpr bool mapped(std::size_t) noexcept { return false; }
  char* resized(std::size_t) { return nullptr; }
  static char* allocate(std::size_t bytes) {
    return static_cast<char*>(::operator new(bytes, std::align_val_t(kAlignment)));
  }
  static void deallocate(char* data, std::size_t) noexcept {
    ::operator delete(data, std::align_val_t(kAlignment));
  }
#endif

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
