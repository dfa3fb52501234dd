#include "zeromerge/memory/page_set.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <vector>

#include "support/random.hpp"

namespace zeromerge {
namespace {

constexpr std::size_t kPages = 256;

std::size_t first_run(const std::vector<bool>& in, std::size_t count) {
  for (std::size_t first = 0; first + count <= kPages; ++first) {
    std::size_t n = 0;
    while (n < count && !in[first + n]) ++n;
    if (n == count) return first;
  }
  return kPages;
}

TEST(PageSet, AgreesWithAListOfPages) {
  test::Random random(11);
  PageSet<kPages> set;
  std::vector<bool> in(kPages, false);
  for (int round = 0; round < 2000; ++round) {
    const std::size_t first = random.between(0, kPages - 1);
    const std::size_t count = random.between(1, kPages - first);
    if (random.between(0, 1) == 0) {
      set.add(first, count / 2 + 1);
      std::fill_n(in.begin() + static_cast<std::ptrdiff_t>(first), count / 2 + 1, true);
    } else {
      set.remove(first, count);
      std::fill_n(in.begin() + static_cast<std::ptrdiff_t>(first), count, false);
    }
    const auto begin = in.begin() + static_cast<std::ptrdiff_t>(first);
    const auto end = begin + static_cast<std::ptrdiff_t>(count);
    ASSERT_EQ(set.has(first), in[first]);
    ASSERT_EQ(set.count(first, count), static_cast<std::size_t>(std::count(begin, end, true)));
    ASSERT_EQ(set.next_in(first), static_cast<std::size_t>(std::find(begin, in.end(), true) - in.begin()));
    ASSERT_EQ(set.next_out(first), static_cast<std::size_t>(std::find(begin, in.end(), false) - in.begin()));
    ASSERT_EQ(set.find_out(count), first_run(in, count));
  }
}

TEST(PageSet, EndsAreTheSetsEnds) {
  PageSet<kPages> set;
  EXPECT_EQ(set.next_in(0), kPages);
  EXPECT_EQ(set.find_out(kPages), 0u);
  EXPECT_EQ(set.find_out(kPages + 1), kPages);
  set.add(0, kPages);
  EXPECT_EQ(set.next_out(0), kPages);
  EXPECT_EQ(set.next_in(kPages), kPages);
  EXPECT_EQ(set.find_out(1), kPages);
  EXPECT_EQ(set.count(0, kPages), kPages);
  set.remove(kPages - 1, 1);
  EXPECT_EQ(set.find_out(1), kPages - 1);
}

}  // namespace
}  // namespace zeromerge
