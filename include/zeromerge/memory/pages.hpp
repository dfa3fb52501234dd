// Pages of the operating system (Linux): taken, moved and given back, aligned to huge pages and asked for as
// such where they are large enough. Memory that is new reads as 0.
#pragma once

#if defined(__linux__)

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>

namespace zeromerge::pages {

inline constexpr std::size_t kPage = 4096;
inline constexpr std::size_t kHuge = 2 * 1024 * 1024;

// Addresses for `bytes`, aligned to huge pages, with nothing behind them yet; null if there are none.
inline char* reserve_aligned(std::size_t bytes) noexcept {
  constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* all = mmap(nullptr, bytes + kHuge, PROT_NONE, kFlags, -1, 0);
  if (all == MAP_FAILED) return nullptr;
  char* begin = static_cast<char*>(all);
  const std::size_t before = (kHuge - reinterpret_cast<std::uintptr_t>(begin) % kHuge) % kHuge;
  if (before != 0) munmap(begin, before);
  munmap(begin + before + bytes, kHuge - before);
  return begin + before;
}

// Whole pages; null if the system has none.
inline char* map(std::size_t bytes) noexcept {
  constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
  char* at = reserve_aligned(bytes);
  if (at == nullptr) return nullptr;
  if (mmap(at, bytes, PROT_READ | PROT_WRITE, kFlags, -1, 0) == MAP_FAILED) {
    munmap(at, bytes);
    return nullptr;
  }
  madvise(at, bytes, MADV_HUGEPAGE);
  return at;
}

inline void unmap(char* at, std::size_t bytes) noexcept { munmap(at, bytes); }

// The same pages at a size of `wanted`, elsewhere if they must move; null, with nothing changed, if that
// fails.
inline char* remap(char* at, std::size_t bytes, std::size_t wanted) noexcept {
  char* to = at;
  if (mremap(at, bytes, wanted, 0) == MAP_FAILED) {
    to = reserve_aligned(wanted);
    if (to == nullptr) return nullptr;
    if (mremap(at, bytes, wanted, MREMAP_MAYMOVE | MREMAP_FIXED, to) == MAP_FAILED) {
      munmap(to, wanted);
      return nullptr;
    }
  }
  madvise(to, wanted, MADV_HUGEPAGE);
  return to;
}

// The addresses stay; what is behind them is given back, and reads as 0 when it is next touched.
inline void release(char* at, std::size_t bytes) noexcept { madvise(at, bytes, MADV_DONTNEED); }

}  // namespace zeromerge::pages

#endif
