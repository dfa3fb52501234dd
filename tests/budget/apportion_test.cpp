#include "zeromerge/budget/apportion.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "support/random.hpp"

namespace zeromerge {
namespace {

using Entries = std::vector<std::size_t>;

TEST(Apportion, SharesFollowTheWeights) {
  EXPECT_EQ(apportion(std::vector<double>{1, 2, 3}, 60, 0, 100), (Entries{10, 20, 30}));
  EXPECT_EQ(apportion(std::vector<double>{1, 1, 1}, 61, 0, 100),
            (Entries{21, 20, 20}));  // ties: the lower index
}

TEST(Apportion, WhatAFloorTakesComesFromTheOthersInProportion) {
  EXPECT_EQ(apportion(std::vector<double>{0, 1, 3}, 100, 20, 100), (Entries{20, 20, 60}));
  EXPECT_EQ(apportion(std::vector<double>{1, 1, 8}, 100, 0, 40), (Entries{30, 30, 40}));
}

TEST(Apportion, WithoutAnyWeightTheEntriesAreSpreadEvenly) {
  EXPECT_EQ(apportion(std::vector<double>{0, 0, 0}, 10, 1, 100), (Entries{4, 3, 3}));
}

TEST(Apportion, ImpossibleTotalsGiveTheFloorsOrTheCaps) {
  EXPECT_EQ(apportion(std::vector<double>{1, 2}, 100, 5, 30), (Entries{30, 30}));
  EXPECT_EQ(apportion(std::vector<double>{1, 2}, 7, 5, 30), (Entries{5, 5}));
  EXPECT_EQ(apportion(std::vector<double>{1, 2}, 100, 50, 30), (Entries{30, 30}));  // a cap wins over a floor
}

TEST(Apportion, TotalsAreExactAndBoundsHoldAndMoreWeightNeverGetsLess) {
  test::Random random(11);
  for (int round = 0; round < 3000; ++round) {
    const std::size_t heads = random.between(1, 40);
    std::vector<double> weights(heads);
    for (double& w : weights) {
      const double kind = random.uniform();
      w = kind < 0.2 ? 0.0 : kind < 0.4 ? 1.0 : std::exp(6.0 * random.normal());
    }
    const std::size_t floor = random.between(0, 50);
    const std::size_t cap = random.between(floor, 500);
    const std::size_t total = random.between(heads * floor, heads * cap);
    SCOPED_TRACE(testing::Message() << "round " << round << ": " << total << " over " << heads << " heads, "
                                    << floor << " to " << cap);
    const Entries entries = apportion(weights, total, floor, cap);
    ASSERT_EQ(entries.size(), heads);
    ASSERT_EQ(std::accumulate(entries.begin(), entries.end(), std::size_t{0}), total);
    for (std::size_t a = 0; a < heads; ++a) {
      ASSERT_GE(entries[a], floor);
      ASSERT_LE(entries[a], cap);
      for (std::size_t b = 0; b < heads; ++b) {
        if (weights[a] > weights[b]) {
          ASSERT_GE(entries[a], entries[b]) << weights[a] << " and " << weights[b];
        } else if (weights[a] == weights[b] && a < b) {
          ASSERT_GE(entries[a], entries[b]);
          ASSERT_LE(entries[a], entries[b] + 1);
        }
      }
    }
    // Proportional up to the rounding where neither bound holds.
    for (std::size_t a = 0; a < heads; ++a)
      for (std::size_t b = 0; b < heads; ++b) {
        const auto free = [&](std::size_t h) {
          return entries[h] > floor + 1 && entries[h] + 1 < cap && weights[h] > 0.0;
        };
        if (!free(a) || !free(b)) continue;
        const double ratio = weights[a] / weights[b];
        ASSERT_LE(static_cast<double>(entries[a]) - 1.0,
                  ratio * (static_cast<double>(entries[b]) + 1.0) * (1.0 + 1e-9));
      }
  }
}

}  // namespace
}  // namespace zeromerge
