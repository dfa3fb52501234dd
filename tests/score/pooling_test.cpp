#include "zeromerge/score/pooling.hpp"

#include <gtest/gtest.h>

namespace zeromerge {
namespace {

using Numbers = std::vector<float>;

TEST(AveragePool, DividesByTheKernelAlsoAtTheEnds) {
  EXPECT_EQ(average_pool(Numbers{3, 6, 9, 12}, 3), (Numbers{3, 6, 9, 7}));
  EXPECT_EQ(average_pool(Numbers{5, 5}, 5), (Numbers{2, 2}));
}

TEST(AveragePool, LooksHalfAnEvenKernelBack) {
  EXPECT_EQ(average_pool(Numbers{2, 4, 8}, 2), (Numbers{1, 3, 6}));
}

TEST(MaximumPool, TakesTheLargestNeighbourAndNothingBeyondTheEnds) {
  EXPECT_EQ(maximum_pool(Numbers{-1, -2, -9, -8, -7, -6}, 3), (Numbers{-1, -1, -2, -7, -6, -6}));
}

TEST(Pooling, AKernelOfOneOrNoneChangesNothing) {
  const Numbers x{4, -1, 2};
  for (const std::size_t kernel : {0, 1}) {
    EXPECT_EQ(average_pool(x, kernel), x);
    EXPECT_EQ(maximum_pool(x, kernel), x);
  }
  EXPECT_TRUE(average_pool(Numbers{}, 5).empty());
}

}  // namespace
}  // namespace zeromerge
