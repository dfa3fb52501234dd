// How zeromerge-evaluate sizes budgets and puts rows together.
#include "llama_cpp/evaluate/summary.hpp"

#include <gtest/gtest.h>

#include "llama_cpp/evaluate/budget.hpp"

namespace {

using evaluate::paired_ratio;
using evaluate::Row;
using evaluate::summarise;
using evaluate::with_budget;

Row row(const char* text, const char* policy, const char* budget, double kl) {
  return {.text = text,
          .policy = policy,
          .budget = budget,
          .entries = 100,
          .bytes = 2000,
          .kl_mean = kl,
          .top1_agreement = 0.5,
          .nll_delta = -0.25};
}

TEST(EvaluateRatio, IsTheGeometricMeanOfPairs) {
  const double x[] = {1.0, 8.0, 1.0}, y[] = {2.0, 4.0, 2.0};
  const auto r = paired_ratio(x, y);
  EXPECT_NEAR(r.value, std::exp2(-1.0 / 3.0), 1e-12);
  // Logs base 2: -1, 1, -1; their standard deviation is sqrt(4 / 3).
  const double error = std::sqrt(4.0 / 3.0) / std::sqrt(3.0);
  EXPECT_NEAR(r.low, std::exp2(-1.0 / 3.0 - 2.0 * error), 1e-12);
  EXPECT_NEAR(r.high, std::exp2(-1.0 / 3.0 + 2.0 * error), 1e-12);
}

TEST(EvaluateRatio, OfOnePairHasNoWidth) {
  const double x[] = {3.0}, y[] = {2.0};
  const auto r = paired_ratio(x, y);
  EXPECT_DOUBLE_EQ(r.value, 1.5);
  EXPECT_DOUBLE_EQ(r.low, r.high);
}

TEST(EvaluateSummary, ComparesWithTheFirstPolicyAtTheSameBudget) {
  const std::vector<Row> rows = {row("a", "p", "5%", 0.2),   row("a", "q", "5%", 0.1),
                                 row("a", "p", "20%", 0.04), row("b", "p", "5%", 0.8),
                                 row("b", "q", "5%", 0.1),   row("a", "q", "20%", 0.02),
                                 row("c", "q", "5%", 0.3)};
  const auto all = summarise(rows);
  ASSERT_EQ(all.size(), 4u);
  EXPECT_EQ(all[0].policy + all[0].budget, "p5%");
  EXPECT_NEAR(all[0].kl, 0.5, 1e-12);
  EXPECT_NEAR(all[0].ratio.value, 1.0, 1e-12);
  EXPECT_EQ(all[1].policy + all[1].budget, "q5%");
  EXPECT_EQ(all[1].texts, 3u);
  EXPECT_NEAR(all[1].kl, 0.5 / 3.0, 1e-12);
  EXPECT_NEAR(all[1].ratio.value, 0.25, 1e-12) << "text c has no partner";
  EXPECT_NEAR(all[3].ratio.value, 0.5, 1e-12);
  EXPECT_NEAR(all[3].top1, 0.5, 1e-12);
  EXPECT_NEAR(all[3].nll, -0.25, 1e-12);
  EXPECT_NEAR(all[3].bytes, 2000.0, 1e-9);
}

TEST(EvaluateSummary, OfNothingIsNothing) { EXPECT_TRUE(summarise({}).empty()); }

TEST(EvaluateBudget, IsAShareOfEntriesOrOfBytes) {
  EXPECT_EQ(with_budget("zeromerge", "5%", false, 2048, 64), "zeromerge:budget=5%,rollback=0");
  EXPECT_EQ(with_budget("zeromerge:merge=drop", "410", false, 2048, 64),
            "zeromerge:merge=drop,budget=410,rollback=0");
  // 256 bytes a pair of rows of 64 in f16.
  EXPECT_EQ(with_budget("zeromerge", "10%", true, 2000, 64), "zeromerge:budget=51200B,rollback=0");
  EXPECT_EQ(with_budget("zeromerge:storage=q4", "5%", true, 2048, 64),
            "zeromerge:storage=q4,budget=26214B,rollback=0");
  EXPECT_EQ(with_budget("best", "102", true, 2048, 64), "best:budget=102,rollback=0")
      << "a count is no share of anything";
  EXPECT_EQ(with_budget("best", "24KiB", false, 2048, 64), "best:budget=24576B,rollback=0");
  EXPECT_EQ(with_budget("best:rollback=8", "102", false, 2048, 64), "best:rollback=8,budget=102");
  EXPECT_EQ(with_budget("full", "10%", true, 2000, 64), "full");
}

}  // namespace
