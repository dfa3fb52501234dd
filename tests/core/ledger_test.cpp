#include "zeromerge/core/ledger.hpp"

#include <gtest/gtest.h>

namespace zeromerge {
namespace {

TEST(ByteLedger, HoldsTheDifferenceAndRemembersThePeak) {
  ByteLedger ledger;
  ledger.add(100);
  ledger.add(50);
  ledger.remove(120);
  ledger.add(10);
  EXPECT_EQ(ledger.held(), 40u);
  EXPECT_EQ(ledger.peak(), 150u);
}

TEST(ByteLedger, AResetPeakStartsFromWhatIsHeld) {
  ByteLedger ledger;
  ledger.add(100);
  ledger.remove(70);
  ledger.reset_peak();
  EXPECT_EQ(ledger.peak(), 30u);
  ledger.add(5);
  EXPECT_EQ(ledger.peak(), 35u);
}

}  // namespace
}  // namespace zeromerge
