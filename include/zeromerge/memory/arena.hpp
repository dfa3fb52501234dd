// Pages for blocks of 16 KiB up to 2 MiB, cut out of huge pages that all caches of the process share. A
// head's keys are rarely as large as a huge page, but its layer's heads together are: read from small pages
// one after another they cost a sixth of the speed of memory. What is given up must still leave the process:
// a huge page that nobody uses is released at once, and the unused pages of others as soon as there are more
// of them than kIdle and a sixteenth of what is in use.
#pragma once

#include "zeromerge/memory/pages.hpp"

#if defined(__linux__)

#include <algorithm>
#include <cstddef>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "zeromerge/memory/page_set.hpp"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ZEROMERGE_ASAN
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define ZEROMERGE_ASAN
#endif
#if defined(ZEROMERGE_ASAN)
#include <sanitizer/asan_interface.h>
#endif

namespace zeromerge {

// Safe to use from several threads. Sizes are in bytes, whole pages, below pages::kHuge.
class Arena {
 public:
  static constexpr std::size_t kIdle = 2 * 1024 * 1024;

  // The one that blocks use. It is never destroyed, for blocks may be static too.
  static Arena& shared() {
    static Arena* const arena = new Arena;
    return *arena;
  }

  Arena() = default;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena() {
    for (auto& regions : regions_)
      for (const auto& region : regions) unmap(*region);
  }

  // Null if the system has no memory. What it holds is not specified.
  char* take(std::size_t bytes) {
    const std::size_t count = bytes / pages::kPage;
    const std::lock_guard lock(mutex_);
    auto& regions = regions_of(bytes);
    for (const auto& region : regions)
      if (const std::size_t first = region->used.find_out(count); first < kPages)
        return use(*region, first, count);
    auto region = std::make_unique<Region>();
    region->base = pages::map(kRegion);
    if (region->base == nullptr) return nullptr;
    poison(region->base, kRegion);
    regions.push_back(std::move(region));
    return use(*regions.back(), 0, count);
  }

  // Makes what was taken as `bytes` larger or smaller where it lies; false, with nothing changed, if it must
  // move.
  bool resize(char* at, std::size_t bytes, std::size_t wanted) {
    if (&regions_of(bytes) != &regions_of(wanted)) return false;
    const std::lock_guard lock(mutex_);
    Region& region = region_of(at, bytes);
    const std::size_t first = static_cast<std::size_t>(at - region.base) / pages::kPage;
    const std::size_t before = bytes / pages::kPage;
    const std::size_t after = wanted / pages::kPage;
    if (after < before) {
      unuse(region, first + after, before - after);
    } else {
      if (first + after > kPages || region.used.next_in(first + before) < first + after) return false;
      use(region, first + before, after - before);
    }
    return true;
  }

  void give(char* at, std::size_t bytes) noexcept {
    const std::lock_guard lock(mutex_);
    auto& regions = regions_of(bytes);
    Region& region = region_of(at, bytes);
    unuse(region, static_cast<std::size_t>(at - region.base) / pages::kPage, bytes / pages::kPage);
    if (region.used.next_in(0) < kPages) return;
    unmap(region);
    std::erase_if(regions, [&](const auto& other) { return other.get() == &region; });
  }

  // Bytes that blocks have, and those that the process holds for them.
  std::size_t used() const {
    const std::lock_guard lock(mutex_);
    return used_ * pages::kPage;
  }
  std::size_t held() const {
    const std::lock_guard lock(mutex_);
    return held_ * pages::kPage;
  }

 private:
  static constexpr std::size_t kRegion = 4 * pages::kHuge;
  static constexpr std::size_t kPages = kRegion / pages::kPage;
  static constexpr std::size_t kHugePages = pages::kHuge / pages::kPage;
  // Blocks of compressed heads lie beside each other, not in the holes between those of full ones.
  static constexpr std::size_t kLarge = 256 * 1024;

  struct Region {
    char* base = nullptr;
    PageSet<kPages> used;
    PageSet<kPages> held;               // touched since they were last released
    bool split[kPages / kHugePages]{};  // its huge page was released in part: small pages from then on
  };
  using Regions = std::vector<std::unique_ptr<Region>>;

  Regions& regions_of(std::size_t bytes) noexcept { return regions_[bytes < kLarge ? 0 : 1]; }
  Region& region_of(const char* at, std::size_t bytes) noexcept {
    return **std::find_if(regions_of(bytes).begin(), regions_of(bytes).end(), [at](const auto& region) {
      return at >= region->base && at < region->base + kRegion;
    });
  }

  char* use(Region& region, std::size_t first, std::size_t count) noexcept {
    region.used.add(first, count);
    used_ += count;
    each_huge(first, count, [&](std::size_t huge, std::size_t begin, std::size_t pages) {
      if (!region.split[huge]) {
        begin = huge * kHugePages;
        pages = kHugePages;
      }
      held_ += pages - region.held.count(begin, pages);
      region.held.add(begin, pages);
    });
    char* at = region.base + first * pages::kPage;
    unpoison(at, count * pages::kPage);
    return at;
  }

  void unuse(Region& region, std::size_t first, std::size_t count) noexcept {
    region.used.remove(first, count);
    used_ -= count;
    poison(region.base + first * pages::kPage, count * pages::kPage);
    each_huge(first, count, [&](std::size_t huge, std::size_t, std::size_t) {
      if (region.used.count(huge * kHugePages, kHugePages) != 0) return;
      release(region, huge * kHugePages, kHugePages);
      region.split[huge] = false;
    });
    if (held_ - used_ > kIdle / pages::kPage + used_ / 16) trim();
  }

  void release(Region& region, std::size_t first, std::size_t count) noexcept {
    pages::release(region.base + first * pages::kPage, count * pages::kPage);
    held_ -= region.held.count(first, count);
    region.held.remove(first, count);
  }

  // Releases whatever is held and not used.
  void trim() noexcept {
    for (auto& regions : regions_)
      for (const auto& region : regions) trim(*region);
  }
  void trim(Region& region) noexcept {
    for (std::size_t first = region.used.next_out(0), end; first < kPages;
         first = region.used.next_out(end)) {
      end = region.used.next_in(first);
      if (region.held.count(first, end - first) == 0) continue;
      release(region, first, end - first);
      each_huge(first, end - first, [&](std::size_t huge, std::size_t, std::size_t pages) {
        region.split[huge] = pages < kHugePages;
      });
    }
  }

  // visit(huge page, first page, pages) for the parts of [first, first + count) in each huge page.
  template <class Visit>
  static void each_huge(std::size_t first, std::size_t count, const Visit& visit) {
    for (const std::size_t end = first + count; first < end;) {
      const std::size_t huge = first / kHugePages;
      const std::size_t part = std::min(end, (huge + 1) * kHugePages) - first;
      visit(huge, first, part);
      first += part;
    }
  }

  static void unmap(const Region& region) noexcept {
    unpoison(region.base, kRegion);
    pages::unmap(region.base, kRegion);
  }

  // Under AddressSanitizer nobody may touch what is not in use.
  static void poison([[maybe_unused]] char* at, [[maybe_unused]] std::size_t bytes) noexcept {
#if defined(ZEROMERGE_ASAN)
    __asan_poison_memory_region(at, bytes);
#endif
  }
  static void unpoison([[maybe_unused]] char* at, [[maybe_unused]] std::size_t bytes) noexcept {
#if defined(ZEROMERGE_ASAN)
    __asan_unpoison_memory_region(at, bytes);
#endif
  }

  mutable std::mutex mutex_;
  Regions regions_[2];    // of small and of large blocks
  std::size_t used_ = 0;  // pages
  std::size_t held_ = 0;
};

}  // namespace zeromerge

#undef ZEROMERGE_ASAN

#endif
