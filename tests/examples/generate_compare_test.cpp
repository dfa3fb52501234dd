// The figures by which zeromerge-generate compares predictions, against plain sums and cases known by hand.
#include "llama_cpp/generate/compare.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace {

using generate::Agreement;
using Row = std::vector<float>;

Row random_row(std::uint32_t seed, std::size_t size = 1000) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, 4.0f);
  Row row(size);
  for (float& logit : row) logit = normal(random);
  return row;
}

TEST(GenerateCompare, OfEqualLogitsTheLowestIdIsTheLikeliest) {
  EXPECT_EQ(generate::argmax(Row{1, 3, 2, 3}), 1);
  EXPECT_EQ(generate::argmax(Row{5}), 0);
}

TEST(GenerateCompare, LogSumExpOfKnownRows) {
  EXPECT_DOUBLE_EQ(generate::log_sum_exp(Row{0, 0, 0, 0}), std::log(4.0));
  EXPECT_DOUBLE_EQ(generate::log_sum_exp(Row{7}), 7.0);
}

TEST(GenerateCompare, LargeLogitsDoNotOverflow) {
  EXPECT_DOUBLE_EQ(generate::log_sum_exp(Row{30000, 30000}), 30000 + std::log(2.0));
  EXPECT_DOUBLE_EQ(generate::log_sum_exp(Row{-30000, -30000}), -30000 + std::log(2.0));
}

TEST(GenerateCompare, DivergenceFromItselfIsExactlyZero) {
  const Row row = random_row(1);
  EXPECT_EQ(generate::kl_divergence(row, row), 0.0);
}

TEST(GenerateCompare, DivergenceOfTwoTokensAsComputedByHand) {
  // p = (3/4, 1/4), q = (1/2, 1/2)
  const Row reference{std::log(3.0f), 0};
  const Row run{0, 0};
  EXPECT_NEAR(generate::kl_divergence(reference, run), 0.75 * std::log(1.5) + 0.25 * std::log(0.5), 1e-7);
}

TEST(GenerateCompare, DivergenceIsPositiveAndDoesNotSeeAShiftOfAllLogits) {
  const Row reference = random_row(2);
  Row run = random_row(3);
  const double before = generate::kl_divergence(reference, run);
  EXPECT_GT(before, 0);
  for (float& logit : run) logit += 8;
  EXPECT_NEAR(generate::kl_divergence(reference, run), before, 1e-4 * before);
}

TEST(GenerateCompare, ASmallDivergenceIsResolved) {
  // One logit moved by d changes the divergence by p (1 - p) d^2 / 2, here far below float's resolution of
  // the sums.
  const Row reference(50000, 0.0f);
  Row run = reference;
  const float d = 0.01f;
  run[17] = d;
  const double p = 1.0 / 50000;
  const double expected = p * (1 - p) * d * d / 2;
  EXPECT_NEAR(generate::kl_divergence(reference, run), expected, 0.01 * expected);
}

TEST(GenerateCompare, ATokenTheReferenceForbidsAddsNothing) {
  const float forbidden = -std::numeric_limits<float>::infinity();
  EXPECT_EQ(generate::kl_divergence(Row{1, 1, forbidden}, Row{1, 1, forbidden}), 0.0);
  EXPECT_NEAR(generate::kl_divergence(Row{1, 1, forbidden}, Row{1, 1, 1}), std::log(1.5), 1e-12);
}

TEST(GenerateCompare, NegativeLogLikelihoodOfEqualTokens) {
  EXPECT_DOUBLE_EQ(generate::nll(Row{2, 2, 2}, 1), std::log(3.0));
}

TEST(GenerateCompare, MeansOverPositions) {
  Agreement agreement;
  const Row even{0, 0};
  const Row tilted{0, std::log(3.0f)};  // (1/4, 3/4)
  agreement.add(tilted, tilted, 1);
  agreement.add(tilted, even, 1);  // its top is token 0: a disagreement
  EXPECT_EQ(agreement.positions(), 2u);
  EXPECT_DOUBLE_EQ(agreement.top1_agreement(), 0.5);
  EXPECT_NEAR(agreement.nll_delta(), (std::log(2.0) - std::log(4.0 / 3.0)) / 2, 1e-7);
  EXPECT_NEAR(agreement.kl_mean(), (0.75 * std::log(1.5) + 0.25 * std::log(0.5)) / 2, 1e-7);
}

TEST(GenerateCompare, NothingComparedIsNoDivergence) {
  const Agreement agreement;
  EXPECT_EQ(agreement.positions(), 0u);
  EXPECT_EQ(agreement.kl_mean(), 0.0);
}

}  // namespace
