#include "zeromerge/merge/merges.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "support/held.hpp"
#include "support/random.hpp"
#include "zeromerge/score/decayed_attention.hpp"

namespace zeromerge {
namespace {

using test::held;
using test::HeldHead;
using Metric = ResidualMerge::Metric;

constexpr std::size_t kDim = 5;

ResidualMerge merge(float alpha = 0.6f, Metric metric = Metric::dot, Amount residual = count(1)) {
  return ResidualMerge({residual, alpha, metric});
}

// n random entries with masses 1, 2, 3, ... and scores that fall.
Head<float> filled(std::size_t n, ByteLedger* ledger) {
  test::Random random(n);
  Head<float> head(kDim, {true, true}, ledger);
  head.reserve(n + 8);
  for (std::size_t j = 0; j < n; ++j) {
    const auto k = test::normals(random, kDim);
    const auto v = test::normals(random, kDim);
    head.append(k.data(), v.data(), static_cast<std::uint32_t>(10 * j + 5));
    head.mass()[j] = static_cast<float>(j + 1);
    head.score()[j] = 1.0f / static_cast<float>(j + 1);
  }
  return head;
}

// What the mean of these slots weighted by mass must be.
void expect_mean(const HeldHead& before, const std::vector<std::size_t>& slots, const HeldHead& after,
                 std::size_t to, double alpha) {
  double mass = 0.0;
  for (const std::size_t j : slots) mass += static_cast<double>(before.mass[j]);
  EXPECT_FLOAT_EQ(after.mass[to], static_cast<float>(mass));
  EXPECT_NEAR(after.bias[to], alpha * std::log(mass), 1e-6);
  for (std::size_t d = 0; d < kDim; ++d) {
    double key = 0.0;
    double value = 0.0;
    for (const std::size_t j : slots) {
      key += static_cast<double>(before.mass[j]) * static_cast<double>(before.key[j * kDim + d]) / mass;
      value += static_cast<double>(before.mass[j]) * static_cast<double>(before.value[j * kDim + d]) / mass;
    }
    EXPECT_NEAR(after.key[to * kDim + d], key, 1e-6);
    EXPECT_NEAR(after.value[to * kDim + d], value, 1e-6);
  }
}

TEST(ResidualMerge, ALeaverIsFoldedIntoTheMeanWeightedByMass) {
  ByteLedger ledger;
  auto head = filled(6, &ledger);
  const HeldHead before = held(head);
  merge().fold(head, 4, 1, 1, DecayedAttention{});
  const HeldHead after = held(head);
  expect_mean(before, {1, 4}, after, 1, 0.6);
  EXPECT_EQ(after.score[1], before.score[1]);  // the larger one
  EXPECT_EQ(after.position[1], before.position[1]);
  for (const std::size_t untouched : {0u, 2u, 3u, 4u, 5u})
    EXPECT_EQ(after.mass[untouched], before.mass[untouched]);
}

TEST(ResidualMerge, TheScoreFollowsTheScorePolicy) {
  ByteLedger ledger;
  auto head = filled(3, &ledger);
  merge().fold(head, 2, 0, 1, DecayedAttention({0.98f, 0.0f, false, true}));
  EXPECT_FLOAT_EQ(head.score()[0], 1.0f + 1.0f / 3.0f);
}

TEST(ResidualMerge, AlphaScalesTheBiasAndZeroLeavesNone) {
  ByteLedger ledger;
  for (const float alpha : {0.0f, 0.6f, 1.0f}) {
    auto head = filled(3, &ledger);
    merge(alpha).fold(head, 2, 0, 1, DecayedAttention{});
    EXPECT_FLOAT_EQ(head.bias()[0], alpha * std::log(4.0f));
  }
}

TEST(ResidualMerge, TheTargetIsTheLargestDotProductOrTheLeastDistance) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    ByteLedger ledger;
    Head<float> head(kDim, {true, true}, &ledger);
    head.reserve(7);
    test::Random random(seed);
    for (std::uint32_t j = 0; j < 6; ++j) {
      const auto k = test::normals(random, kDim);
      head.append(k.data(), k.data(), j);
    }
    const HeldHead before = held(head);
    std::size_t largest = 1;
    std::size_t closest = 1;
    std::vector<double> dot(6);
    std::vector<double> distance(6);
    for (std::size_t j = 1; j < 5; ++j) {
      for (std::size_t d = 0; d < kDim; ++d) {
        const double x = static_cast<double>(before.key[j * kDim + d]);
        const double y = static_cast<double>(before.key[5 * kDim + d]);
        dot[j] += x * y;
        distance[j] += (x - y) * (x - y);
      }
      if (dot[j] > dot[largest]) largest = j;
      if (distance[j] < distance[closest]) closest = j;
    }
    for (const Metric metric : {Metric::dot, Metric::l2}) {
      Head<float> copy = head.sibling();
      copy.reserve(7);
      for (std::size_t j = 0; j < 6; ++j) copy.copy(head, j, j);
      copy.set_size(6);
      merge(0.6f, metric).fold(copy, 5, 1, 4, DecayedAttention{});
      for (std::size_t j = 0; j < 6; ++j)
        EXPECT_EQ(copy.mass()[j], j == (metric == Metric::dot ? largest : closest) ? 2.0f : 1.0f)
            << seed << " " << j;
    }
  }
}

TEST(ResidualMerge, TiesGoToTheLowerSlot) {
  ByteLedger ledger;
  Head<float> head(kDim, {true, true}, &ledger);
  head.reserve(5);
  const float row[kDim] = {1, 2, 3, 4, 5};
  for (std::uint32_t j = 0; j < 4; ++j) head.append(row, row, j);
  for (const Metric metric : {Metric::dot, Metric::l2}) {
    const float before = head.mass()[1];
    merge(0.6f, metric).fold(head, 3, 1, 2, DecayedAttention{});
    EXPECT_EQ(head.mass()[1], before + 1.0f);
    EXPECT_EQ(head.mass()[2], 1.0f);
  }
}

TEST(ResidualMerge, AGroupBecomesOneEntryAtItsOldestPosition) {
  ByteLedger ledger;
  const auto source = filled(9, &ledger);
  auto target = source.sibling();
  target.reserve(4);
  const std::vector<std::size_t> slots = {2, 5, 6};
  merge().fold_group(source, slots, target, 0, DecayedAttention{});
  target.set_size(1);
  const HeldHead after = held(target);
  expect_mean(held(source), slots, after, 0, 0.6);
  EXPECT_EQ(after.position[0], 25u);
  EXPECT_FLOAT_EQ(after.score[0], 1.0f / 3.0f);
}

TEST(ResidualMerge, AGroupJoinsTheEntryThatStandsThereAlready) {
  ByteLedger ledger;
  const auto source = filled(9, &ledger);
  auto target = source.sibling();
  target.reserve(4);
  target.copy(source, 1, 0);
  target.set_size(1);
  const std::vector<std::size_t> slots = {4, 7};
  merge().fold_group(source, slots, target, 0, DecayedAttention{});
  expect_mean(held(source), {1, 4, 7}, held(target), 0, 0.6);
  EXPECT_EQ(target.position()[0], 15u);
}

TEST(ResidualMerge, ThereIsAlwaysAtLeastOneResidualEntry) {
  EXPECT_EQ(merge().residuals(60), 1u);
  EXPECT_EQ(merge(0.6f, Metric::dot, share(0.1)).residuals(60), 6u);
  EXPECT_EQ(merge(0.6f, Metric::dot, share(0.0)).residuals(60), 1u);
  EXPECT_EQ(merge(0.6f, Metric::dot, count(3)).residuals(60), 3u);
  EXPECT_TRUE(merge().keeps_mass());
}

TEST(ResidualMerge, AlphaOutOfRangeIsRefused) {
  for (const float alpha : {-0.1f, 101.0f, std::nanf("")}) EXPECT_THROW(merge(alpha), Error) << alpha;
}

TEST(DropMerge, KeepsNeitherMassNorResidualEntriesAndChangesNothing) {
  ByteLedger ledger;
  auto head = filled(4, &ledger);
  const HeldHead before = held(head);
  const DropMerge drop;
  EXPECT_FALSE(drop.keeps_mass());
  EXPECT_EQ(drop.residuals(100), 0u);
  drop.fold(head, 3, 0, 1, DecayedAttention{});
  EXPECT_EQ(test::difference({0, false, {held(head)}}, {0, false, {before}}), "");
}

TEST(AnyMerge, ActsAsTheChosenOne) {
  EXPECT_FALSE(AnyMerge{DropMerge{}}.keeps_mass());
  EXPECT_EQ(AnyMerge{DropMerge{}}.residuals(10), 0u);
  const AnyMerge any{merge(1.0f, Metric::l2, count(2))};
  EXPECT_TRUE(any.keeps_mass());
  EXPECT_EQ(any.residuals(10), 2u);
  ByteLedger ledger;
  auto head = filled(6, &ledger);
  const HeldHead before = held(head);
  any.fold(head, 4, 1, 1, DecayedAttention{});
  expect_mean(before, {1, 4}, held(head), 1, 1.0);
}

}  // namespace
}  // namespace zeromerge
