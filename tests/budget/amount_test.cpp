#include "zeromerge/budget/amount.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace zeromerge {
namespace {

TEST(Amount, AShareIsTruncatedAsInTheReference) {
  EXPECT_EQ(share(0.05).of(1000), 50u);
  EXPECT_EQ(share(0.05).of(1019), 50u);
  EXPECT_EQ(share(0.29).of(100),
            static_cast<std::size_t>(0.29 * 100.0));  // 28: the product is below 29 in double
  EXPECT_EQ(share(1.0).of(123'456'789), 123'456'789u);
  EXPECT_EQ(share(0.0).of(1000), 0u);
}

TEST(Amount, ACountIsItselfWhateverTheWhole) {
  EXPECT_EQ(count(410).of(0), 410u);
  EXPECT_EQ(count(410).of(1'000'000), 410u);
}

TEST(Amount, SharesOutsideOfZeroToOneAreRefused) {
  EXPECT_THROW(share(-0.1), Error);
  EXPECT_THROW(share(1.1), Error);
  EXPECT_THROW(share(std::nan("")), Error);
}

}  // namespace
}  // namespace zeromerge
