#include "zeromerge/budget/fill_groups.hpp"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "support/random.hpp"

namespace zeromerge {
namespace {

using Counts = std::vector<std::size_t>;

Counts filled(Counts capacities, const BudgetQuery& query) {
  fill_groups(capacities, query);
  return capacities;
}

TEST(FillGroups, GivesWholeGroupsToThoseThatLostMost) {
  const BudgetQuery query{.tokens = 1000, .needed = 10, .group = 32, .loose = 31};
  // 31 + 32 k: over by 1, 20, 0 and 13, together one group and two entries.
  EXPECT_EQ(filled({64, 115, 127, 76}, query), (Counts{63, 127, 127, 65}));
  EXPECT_EQ(filled({63, 95}, query), (Counts{63, 95}));
  EXPECT_EQ(filled({100, 100}, query), (Counts{105, 95})) << "10 entries of both are left for the first";
}

TEST(FillGroups, LeavesAloneWhatHoldsThePromptOrCannotDoWithLess) {
  const BudgetQuery query{.tokens = 160, .needed = 70, .group = 32, .loose = 31};
  EXPECT_EQ(filled({72, 130, 160, 162}, query), (Counts{72, 130, 160, 162}));
  EXPECT_EQ(filled({72, 72}, {.tokens = 160, .needed = 5, .beside = 65, .group = 32, .loose = 31}),
            (Counts{72, 72}))
      << "63 are too few for the first and last tokens";
  EXPECT_EQ(filled({5, 7}, {.tokens = 120}), (Counts{5, 7})) << "without groups nothing changes";
  EXPECT_TRUE(filled({}, query).empty());
}

TEST(FillGroups, KeepsTheTotalAndMovesNobodyByMoreThanAGroup) {
  test::Random random(1);
  for (int round = 0; round < 300; ++round) {
    const std::size_t needed = random.between(1, 80);
    const BudgetQuery query{.tokens = 700, .needed = needed, .group = 32, .loose = random.between(0, 63)};
    Counts before(random.between(1, 100));
    for (std::size_t& c : before) c = needed + random.between(0, 600);
    const Counts after = filled(before, query);
    EXPECT_EQ(std::accumulate(after.begin(), after.end(), std::size_t{0}),
              std::accumulate(before.begin(), before.end(), std::size_t{0}));
    std::size_t parts = 0;
    for (std::size_t h = 0; h < before.size(); ++h) {
      EXPECT_GE(after[h], needed);
      EXPECT_LT(before[h], after[h] + 32);
      EXPECT_LE(after[h], before[h] + 32);
      const bool fixed = before[h] + 32 > query.tokens || before[h] < needed + 32 || before[h] < query.loose;
      parts += !fixed && (after[h] - query.loose) % 32 != 0;
    }
    EXPECT_LE(parts, 1u) << "only one head has what is less than a group";
  }
}

}  // namespace
}  // namespace zeromerge
