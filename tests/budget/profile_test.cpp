#include "zeromerge/budget/profile.hpp"

#include <gtest/gtest.h>

#include <sstream>
#include <string>
#include <vector>

#include "support/temporary_file.hpp"

namespace zeromerge {
namespace {

constexpr const char* kTwoLevels =
    "zeromerge-profile 1   # a comment\n"
    "layers 2 kv_heads 2\n"
    "budget 0.05\n"
    "1 1\n"
    "2 4   # sums to 8: scaled to mean 1\n"
    "# between the levels\n"
    "budget 0.25\n"
    "0 0\n"
    "4 0\n";

HeadProfile parse(const std::string& text) {
  std::istringstream stream(text);
  return HeadProfile::parse(stream, "test");
}
std::string refusal(const std::string& text) {
  try {
    (void)parse(text);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}
void expect_shares(const std::vector<double>& got, const std::vector<double>& expected) {
  ASSERT_EQ(got.size(), expected.size());
  for (std::size_t h = 0; h < got.size(); ++h) EXPECT_NEAR(got[h], expected[h], 1e-12) << "head " << h;
}

TEST(HeadProfile, SharesAreScaledToMeanOne) {
  const HeadProfile profile = parse(kTwoLevels);
  EXPECT_EQ(profile.layers(), 2u);
  EXPECT_EQ(profile.kv_heads(), 2u);
  expect_shares(profile.shares(0.05), {0.5, 0.5, 1.0, 2.0});
  expect_shares(profile.shares(0.25), {0.0, 0.0, 4.0, 0.0});
}

TEST(HeadProfile, BetweenLevelsSharesAreInterpolatedAndOutsideTheNearestHolds) {
  const HeadProfile profile = parse(kTwoLevels);
  expect_shares(profile.shares(0.10), {0.375, 0.375, 1.75, 1.5});
  expect_shares(profile.shares(0.15), {0.25, 0.25, 2.5, 1.0});
  expect_shares(profile.shares(0.001), {0.5, 0.5, 1.0, 2.0});
  expect_shares(profile.shares(1.0), {0.0, 0.0, 4.0, 0.0});
}

TEST(HeadProfile, AFileReadsAsItsText) {
  std::string path;
  {
    const test::TemporaryFile file(kTwoLevels);
    path = file.path();
    expect_shares(HeadProfile::load(path).shares(0.05), {0.5, 0.5, 1.0, 2.0});
  }
  EXPECT_THROW((void)HeadProfile::load(path), Error);
}

TEST(HeadProfile, WhatIsWrongIsNamed) {
  const auto contains = [](const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
  };
  EXPECT_TRUE(contains(refusal(""), "expected 'zeromerge-profile'"));
  EXPECT_TRUE(contains(refusal("zeromerge-profile 2\n"), "expected version 1, got 2"));
  EXPECT_TRUE(contains(refusal("zeromerge-profile x\n"), "expected version 1"));
  EXPECT_TRUE(contains(refusal("zeromerge-profile 1 layers 0"), "layers must be a positive count"));
  EXPECT_TRUE(contains(refusal("zeromerge-profile 1 layers -3"), "layers must be a positive count"));
  EXPECT_TRUE(contains(refusal("zeromerge-profile 1 layers 2 heads"), "expected 'kv_heads', got 'heads'"));
  const std::string head = "zeromerge-profile 1 layers 1 kv_heads 2 ";
  EXPECT_TRUE(contains(refusal(head), "no 'budget' level"));
  EXPECT_TRUE(contains(refusal(head + "0.5 0.5"), "expected 'budget', got '0.5'"));
  EXPECT_TRUE(contains(refusal(head + "budget 0 1 1"), "must be in (0, 1]"));
  EXPECT_TRUE(contains(refusal(head + "budget 1.5 1 1"), "must be in (0, 1]"));
  EXPECT_TRUE(contains(refusal(head + "budget 0.1 1"), "number 2 is missing or wrong"));
  EXPECT_TRUE(contains(refusal(head + "budget 0.1 -1 1"), "number 1 is missing or wrong"));
  EXPECT_TRUE(contains(refusal(head + "budget 0.1 nan 1"), "number 1 is missing or wrong"));
  EXPECT_TRUE(contains(refusal(head + "budget 0.1 0 0"), "no share above 0"));
  EXPECT_TRUE(contains(refusal(head + "budget 0.1 1 1 1"), "expected 'budget', got '1'"));
  EXPECT_TRUE(contains(refusal(head + "budget 0.2 1 1 budget 0.2 1 1"), "must rise"));
}

}  // namespace
}  // namespace zeromerge
