// A set of the pages of one region, as bits.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace zeromerge {

template <std::size_t kPages>
class PageSet {
  static_assert(kPages % 64 == 0);

 public:
  bool has(std::size_t page) const noexcept { return (words_[page / 64] >> page % 64 & 1) != 0; }

  void add(std::size_t first, std::size_t count) noexcept {
    each_word(first, count, [this](std::size_t w, std::uint64_t mask) { words_[w] |= mask; });
  }
  void remove(std::size_t first, std::size_t count) noexcept {
    each_word(first, count, [this](std::size_t w, std::uint64_t mask) { words_[w] &= ~mask; });
  }

  // How many of [first, first + count) are in the set.
  std::size_t count(std::size_t first, std::size_t count) const noexcept {
    std::size_t found = 0;
    each_word(first, count, [&](std::size_t w, std::uint64_t mask) {
      found += static_cast<std::size_t>(std::popcount(words_[w] & mask));
    });
    return found;
  }

  // The first page from `page` on that is (not) in the set; kPages if there is none.
  std::size_t next_in(std::size_t page) const noexcept { return next(page, 0); }
  std::size_t next_out(std::size_t page) const noexcept { return next(page, ~std::uint64_t{0}); }

  // The first `count` pages in a row that are not in the set; kPages if there are none.
  std::size_t find_out(std::size_t count) const noexcept {
    for (std::size_t first = next_out(0); first + count <= kPages;) {
      const std::size_t end = next_in(first);
      if (end - first >= count) return first;
      first = next_out(end);
    }
    return kPages;
  }

 private:
  template <class Visit>
  static void each_word(std::size_t first, std::size_t count, const Visit& visit) {
    for (const std::size_t end = first + count; first < end;) {
      const std::size_t bit = first % 64;
      const std::size_t bits = std::min(64 - bit, end - first);
      visit(first / 64, (~std::uint64_t{0} >> (64 - bits)) << bit);
      first += bits;
    }
  }

  std::size_t next(std::size_t page, std::uint64_t flip) const noexcept {
    while (page < kPages) {
      const std::uint64_t word = (words_[page / 64] ^ flip) >> page % 64;
      if (word != 0) return page + static_cast<std::size_t>(std::countr_zero(word));
      page = (page / 64 + 1) * 64;
    }
    return kPages;
  }

  std::array<std::uint64_t, kPages / 64> words_{};
};

}  // namespace zeromerge
