// Value-only merging against plain loops in double.
#include "zeromerge/merge/nearest_value.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "support/held.hpp"
#include "support/isa.hpp"
#include "support/random.hpp"

namespace zeromerge {
namespace {

using test::held;
using test::HeldHead;
using Slots = std::vector<std::size_t>;

template <class K = float>
Head<K> filled(std::size_t n, std::size_t dim, ByteLedger* ledger, std::uint64_t seed = 1) {
  test::Random random(seed + n);
  Head<K> head(dim, {}, ledger);
  head.reserve(n);
  for (std::size_t j = 0; j < n; ++j)
    head.append(test::normals(random, dim).data(), test::normals(random, dim, 0.5 + random.uniform()).data(),
                static_cast<std::uint32_t>(j));
  return head;
}

double dot(const float* a, const float* b, std::size_t n) {
  double sum = 0.0;
  for (std::size_t d = 0; d < n; ++d) sum += static_cast<double>(a[d]) * static_cast<double>(b[d]);
  return sum;
}

double cosine(const float* a, const float* b, std::size_t n) {
  const double lengths = std::sqrt(dot(a, a, n) * dot(b, b, n));
  return lengths > 0.0 ? dot(a, b, n) / lengths : 0.0;
}

// Values of `kept` after it took in these slots of `all`; they hang on no near tie.
std::vector<double> expected(const HeldHead& all, const Slots& leavers, const HeldHead& kept,
                             std::size_t dim) {
  std::vector<double> value(kept.value.begin(), kept.value.end()), weight(kept.size, 1.0);
  for (const std::size_t e : leavers) {
    const float *key = all.key.data() + e * dim, *v = all.value.data() + e * dim;
    std::size_t best = 0;
    double top = -2.0, second = -2.0;
    for (std::size_t s = 0; s < kept.size; ++s) {
      const double c = cosine(key, kept.key.data() + s * dim, dim);
      if (c > top) {
        second = top;
        top = c;
        best = s;
      } else {
        second = std::max(second, c);
      }
    }
    EXPECT_GT(top - second, 1e-6) << "choose other numbers";
    const float* to = kept.value.data() + best * dim;
    const double length = std::sqrt(dot(v, v, dim));
    const double w = std::max(top, 0.0) * length / (length + std::sqrt(dot(to, to, dim)));
    weight[best] += w;
    for (std::size_t d = 0; d < dim; ++d) value[best * dim + d] += w * static_cast<double>(v[d]);
  }
  for (std::size_t s = 0; s < kept.size; ++s)
    for (std::size_t d = 0; d < dim; ++d) value[s * dim + d] /= weight[s];
  return value;
}

// Every `stride`-th entry stays.
template <class K = float>
void check(std::size_t n, std::size_t stride, std::size_t dim, double tolerance = 1e-5) {
  SCOPED_TRACE(testing::Message() << n << " entries of " << dim << " channels, one of " << stride
                                  << " stays");
  ByteLedger ledger;
  const auto all = filled<K>(n, dim, &ledger);
  auto kept = all.sibling();
  kept.reserve(n);
  Slots leavers;
  for (std::size_t j = 0; j < n; ++j) {
    if (j % stride != 0) {
      leavers.push_back(j);
      continue;
    }
    kept.set_size(kept.size() + 1);
    kept.copy(all, j, kept.size() - 1);
  }
  const HeldHead before = held(kept);
  const auto want = expected(held(all), leavers, before, dim);
  NearestValueMerge{}.absorb(all, leavers, kept);
  const HeldHead after = held(kept);
  EXPECT_EQ(after.key, before.key);
  EXPECT_EQ(after.position, before.position);
  ASSERT_EQ(after.value.size(), want.size());
  for (std::size_t i = 0; i < want.size(); ++i)
    ASSERT_NEAR(after.value[i], want[i], tolerance * (1.0 + std::abs(want[i]))) << "entry " << i / dim;
}

class NearestValue : public test::EachIsa {};

TEST_P(NearestValue, IsItsFormula) {
  for (const std::size_t dim : {5, 64, 80, 128})
    for (const std::size_t stride : {2, 5, 50}) check(100, stride, dim);
  for (const std::size_t n : {1, 2, 15, 16, 17, 31, 33, 128, 257}) check(n, 2, 64);
}

TEST_P(NearestValue, WorksOnAnyStorage) {
  check<f16>(100, 5, 64, 1e-3);
  check<q8>(100, 5, 64, 3e-2);
}

TEST_P(NearestValue, ALeaverLikeNobodyIsDropped) {
  ByteLedger ledger;
  Head<float> all(2, {}, &ledger), kept(2, {}, &ledger);
  all.reserve(2);
  kept.reserve(1);
  const float one[] = {1.0f, 0.0f}, opposite[] = {-2.0f, 0.5f}, none[] = {0.0f, 0.0f}, v[] = {3.0f, 4.0f};
  all.append(opposite, v, 0);
  all.append(none, v, 1);
  kept.append(one, one, 2);
  NearestValueMerge{}.absorb(all, Slots{0, 1}, kept);
  EXPECT_EQ(held(kept).value, (std::vector<float>{1.0f, 0.0f}));
}

TEST_P(NearestValue, TiesGoToTheLowerSlotAndSeveralLeaversAreWeighedTogether) {
  ByteLedger ledger;
  Head<float> all(2, {}, &ledger), kept(2, {}, &ledger);
  all.reserve(2);
  kept.reserve(3);
  const float right[] = {4.0f, 0.0f}, up[] = {0.0f, 2.0f}, v[] = {0.0f, 4.0f}, w[] = {4.0f, 0.0f};
  all.append(right, v, 0);
  all.append(right, v, 1);
  kept.append(up, w, 2);
  kept.append(right, w, 3);
  kept.append(right, w, 4);
  NearestValueMerge{}.absorb(all, Slots{0, 1}, kept);
  // Each with weight 1/2: ((4, 0) + (0, 2) + (0, 2)) / 2.
  EXPECT_EQ(held(kept).value, (std::vector<float>{4.0f, 0.0f, 2.0f, 2.0f, 4.0f, 0.0f}));
}

TEST_P(NearestValue, ValuesOfZerosNeitherGiveNorBreakAnything) {
  ByteLedger ledger;
  Head<float> all(2, {}, &ledger), kept(2, {}, &ledger);
  all.reserve(2);
  kept.reserve(1);
  const float right[] = {4.0f, 0.0f}, none[] = {0.0f, 0.0f}, v[] = {0.0f, 4.0f};
  all.append(right, none, 0);
  kept.append(right, none, 1);
  NearestValueMerge{}.absorb(all, Slots{0}, kept);
  EXPECT_EQ(held(kept).value, (std::vector<float>{0.0f, 0.0f}));
  all.append(right, v, 2);
  NearestValueMerge{}.absorb(all, Slots{1}, kept);
  EXPECT_EQ(held(kept).value, (std::vector<float>{0.0f, 2.0f}));
}

TEST_P(NearestValue, NobodyLeavingOrStayingChangesNothing) {
  ByteLedger ledger;
  const auto all = filled(20, 64, &ledger);
  auto kept = filled(5, 64, &ledger, 9);
  const HeldHead before = held(kept);
  NearestValueMerge{}.absorb(all, Slots{}, kept);
  EXPECT_EQ(held(kept).value, before.value);
  auto empty = all.sibling();
  NearestValueMerge{}.absorb(all, Slots{3, 4}, empty);
  EXPECT_EQ(empty.size(), 0u);
}

INSTANTIATE_TEST_SUITE_P(Levels, NearestValue, testing::ValuesIn(test::available_isas()), test::isa_of);

}  // namespace
}  // namespace zeromerge
