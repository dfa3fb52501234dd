#include "zeromerge/core/errors.hpp"

#include <gtest/gtest.h>

#include <stdexcept>

namespace zeromerge {
namespace {

TEST(Errors, FailThrowsItsPartsInOrder) {
  try {
    fail("budget: ", 3, " of ", 0.5, " is too ", std::string("small"));
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "budget: 3 of 0.5 is too small");
    return;
  }
  FAIL() << "nothing was thrown";
}

TEST(Errors, ErrorIsAStandardException) { EXPECT_THROW(fail("x"), std::invalid_argument); }

}  // namespace
}  // namespace zeromerge
