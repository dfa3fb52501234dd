#include "zeromerge/cache/query_window.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "support/random.hpp"
#include "support/rounding.hpp"

namespace zeromerge {
namespace {

constexpr std::size_t kHeads = 2;
constexpr std::size_t kGroup = 3;
constexpr std::size_t kStride = 16;
constexpr std::size_t kWidth = kGroup * kStride;

// Everything ever appended, per head, to compare with what the window keeps.
struct Shadow {
  std::vector<float> rows[kHeads];
  std::vector<float> lse[kHeads];
  test::Random random{5};

  void append(QueryWindow& window, std::size_t tokens) {
    std::vector<float> stacked;
    std::vector<float> sums;
    for (std::size_t h = 0; h < kHeads; ++h) {
      const auto x = test::normals(random, tokens * kWidth);
      const auto s = test::normals(random, tokens * kGroup);
      stacked.insert(stacked.end(), x.begin(), x.end());
      sums.insert(sums.end(), s.begin(), s.end());
      const auto kept = test::kept_as<f16>(x);
      rows[h].insert(rows[h].end(), kept.begin(), kept.end());
      lse[h].insert(lse[h].end(), s.begin(), s.end());
    }
    window.reserve(tokens);
    window.append(stacked.data(), sums.data(), tokens);
  }
  void drop_last(QueryWindow& window, std::size_t tokens) {
    window.drop_last(tokens);
    for (std::size_t h = 0; h < kHeads; ++h) {
      rows[h].resize(rows[h].size() - tokens * kWidth);
      lse[h].resize(lse[h].size() - tokens * kGroup);
    }
  }
  void expect_last(const QueryWindow& window, std::size_t tokens) const {
    std::vector<float> stacked(kHeads * tokens * kWidth);
    std::vector<float> sums(kHeads * tokens * kGroup);
    window.read_last(tokens, stacked.data(), sums.data());
    for (std::size_t h = 0; h < kHeads; ++h) {
      for (std::size_t i = 0; i < tokens * kWidth; ++i)
        ASSERT_EQ(stacked[h * tokens * kWidth + i], rows[h][rows[h].size() - tokens * kWidth + i]);
      for (std::size_t i = 0; i < tokens * kGroup; ++i)
        ASSERT_EQ(sums[h * tokens * kGroup + i], lse[h][lse[h].size() - tokens * kGroup + i]);
    }
  }
};

TEST(QueryWindow, HoldsTheLastRowsHoweverTheyCame) {
  ByteLedger ledger;
  QueryWindow window(10, kHeads, kGroup, kStride, &ledger);
  Shadow shadow;
  std::size_t all = 0;
  for (const std::size_t tokens : {1u, 3u, 4u, 1u, 5u, 10u, 2u, 25u, 1u, 9u}) {
    shadow.append(window, tokens);
    all += tokens;
    ASSERT_EQ(window.tokens(), std::min<std::size_t>(all, 10));
    ASSERT_EQ(window.bytes(), ledger.held());
    for (std::size_t n = 1; n <= window.tokens(); ++n) shadow.expect_last(window, n);
  }
}

TEST(QueryWindow, DroppedRowsAreForgotten) {
  ByteLedger ledger;
  QueryWindow window(10, kHeads, kGroup, kStride, &ledger);
  Shadow shadow;
  shadow.append(window, 8);
  shadow.drop_last(window, 3);
  EXPECT_EQ(window.tokens(), 5u);
  shadow.expect_last(window, 5);
  shadow.append(window, 4);
  shadow.expect_last(window, 9);
  window.drop_last(100);
  EXPECT_EQ(window.tokens(), 0u);
}

TEST(QueryWindow, TakesNoMoreMemoryThanItsRowsAndGivesItBack) {
  ByteLedger ledger;
  QueryWindow window(456, kHeads, kGroup, kStride, &ledger);
  EXPECT_EQ(ledger.held(), 0u);
  Shadow shadow;
  shadow.append(window, 2000);
  const std::size_t row_bytes = kHeads * 456 * (kWidth * sizeof(f16) + kGroup * sizeof(float));
  EXPECT_GE(ledger.held(), row_bytes);
  EXPECT_LT(ledger.held(), row_bytes + 2 * Block::kPage);
  window.clear();
  EXPECT_EQ(window.tokens(), 0u);
  EXPECT_EQ(ledger.held(), 0u);
  shadow.append(window, 3);
  shadow.expect_last(window, 3);
}

}  // namespace
}  // namespace zeromerge
