#include "zeromerge/score/decayed_attention.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace zeromerge {
namespace {

DecayedAttention score(float decay, float tail_bound = 1e-4f, bool age_normalised = false, bool sum = false) {
  return DecayedAttention({decay, tail_bound, age_normalised, sum});
}

TEST(DecayedAttention, WeightsArePowersOfTheDecay) {
  const auto s = score(0.9f);
  double expected = 1.0;
  for (std::size_t later = 0; later < 50; ++later, expected *= static_cast<double>(0.9f))
    EXPECT_NEAR(s.weight(later), expected, 1e-12);
  EXPECT_EQ(score(1.0f).weight(1'000'000), 1.0);
}

TEST(DecayedAttention, TheTailLeavesOutNoMoreThanItsBoundAndNoRowTooMany) {
  for (const float decay : {0.5f, 0.9f, 0.98f, 0.99f, 0.995f})
    for (const float bound : {1e-2f, 1e-4f, 1e-6f}) {
      const auto s = score(decay, bound);
      const std::size_t rows = s.tail_rows();
      ASSERT_GT(rows, 0u);
      // The rows left out carry decay^rows of the whole geometric sum.
      EXPECT_LE(s.weight(rows), static_cast<double>(bound) * 1.0001) << decay << " " << bound;
      EXPECT_GT(s.weight(rows - 1), static_cast<double>(bound) * 0.9999) << decay << " " << bound;
    }
  EXPECT_EQ(score(0.98f).tail_rows(), 456u);
}

TEST(DecayedAttention, EveryRowCountsWithoutDecayOrWithoutBoundOrWhereTheTailIsLong) {
  EXPECT_EQ(score(1.0f).tail_rows(), 0u);
  EXPECT_EQ(score(0.98f, 0.0f).tail_rows(), 0u);
  EXPECT_EQ(score(0.9999f).tail_rows(), 0u);
}

TEST(DecayedAttention, ImportanceIsTheScoreUnlessNormalised) {
  EXPECT_EQ(score(0.98f).importance(0.75f, 3), 0.75f);
}

TEST(DecayedAttention, AgeNormalisedImportanceDividesByTheDecayedNumberOfQueries) {
  for (const float decay : {0.9f, 0.98f, 1.0f}) {
    const auto s = score(decay, 0.0f, true);
    double seen = 0.0;
    for (std::size_t queries = 1; queries <= 200; ++queries) {
      seen += s.weight(queries - 1);
      ASSERT_NEAR(s.importance(0.75f, queries), 0.75 / seen, 1e-6 / seen) << decay << " " << queries;
    }
  }
}

TEST(DecayedAttention, AMergedScoreIsTheLargerOneOrTheSum) {
  EXPECT_EQ(score(0.98f).merged(0.25f, 0.5f), 0.5f);
  EXPECT_EQ(score(0.98f).merged(0.5f, 0.25f), 0.5f);
  EXPECT_EQ(score(0.98f, 0.0f, false, true).merged(0.25f, 0.5f), 0.75f);
}

TEST(DecayedAttention, ParametersOutOfRangeAreRefused) {
  for (const float decay : {0.0f, -0.5f, 1.5f, std::nanf("")}) EXPECT_THROW(score(decay), Error) << decay;
  for (const float bound : {-0.1f, 1.0f, std::nanf("")}) EXPECT_THROW(score(0.9f, bound), Error) << bound;
}

}  // namespace
}  // namespace zeromerge
