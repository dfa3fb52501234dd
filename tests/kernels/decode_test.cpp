// kernels/cpu/decode.inl at every level against double.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "support/isa.hpp"
#include "support/kernel_rows.hpp"

namespace zeromerge {
namespace {

using test::PackedKeys;
using test::PackedQueries;
using test::PackedValues;
using test::Random;

constexpr std::size_t kDims[] = {1, 5, 8, 24, 64, 80, 96, 128, 256};
constexpr std::size_t kGroups[] = {1, 2, 3, 4, 8, 71};
constexpr std::size_t kLengths[] = {1, 15, 16, 17, 63, 64, 65, 255, 256, 257, 300};

class DecodeKernels : public test::EachIsa {};

template <class K>
void check_logits(std::size_t dim, std::size_t group, std::size_t n, bool biased) {
  SCOPED_TRACE(testing::Message() << "dim " << dim << " group " << group << " n " << n
                                  << (biased ? " biased" : ""));
  Random random(dim * 1000 + group * 10 + n);
  const PackedKeys<K> keys(random, n, dim, biased);
  const PackedQueries q(random, group, dim);
  const std::size_t stride = test::padded(n) + 16;
  std::vector<float> logits(group * stride, -1.0f);
  kernels::logits(q.rows.data(), q.stride, group, keys.tiles.data(), keys.tile_size, keys.pairs,
                  keys.view().bias, test::padded(n) / 16, logits.data(), stride);
  for (std::size_t g = 0; g < group; ++g) {
    for (std::size_t j = 0; j < n; ++j) {
      double expected = keys.bias_of(j);
      double size = std::abs(expected);
      for (std::size_t d = 0; d < dim; ++d) {
        const double x = static_cast<double>(q.row(g)[d]) * static_cast<double>(keys.row(j)[d]);
        expected += x;
        size += std::abs(x);
      }
      ASSERT_NEAR(logits[g * stride + j], expected, 5e-7 * size) << "row " << g << " entry " << j;
    }
    for (std::size_t j = test::padded(n); j < stride; ++j)
      ASSERT_EQ(logits[g * stride + j], -1.0f) << "written beyond";
  }
}

template <class K>
void check_logits() {
  for (const std::size_t dim : kDims)
    for (const std::size_t group : kGroups) check_logits<K>(dim, group, 33, group % 2 == 0);
  for (const std::size_t n : kLengths) {
    check_logits<K>(64, 3, n, true);
    check_logits<K>(24, 1, n, false);
    check_logits<K>(5, 8, n, true);
  }
}

TEST_P(DecodeKernels, LogitsAreScaledProductsPlusBias) {
  check_logits<float>();
  check_logits<f16>();
  check_logits<bf16>();
}

TEST_P(DecodeKernels, ExponentialsSubtractTheMaximumAndZeroThePadding) {
  for (const std::size_t n : kLengths)
    for (const double spread : {0.01, 1.0, 40.0}) {
      SCOPED_TRACE(testing::Message() << "n " << n << " spread " << spread);
      Random random(n);
      std::vector<float> x = test::normals(random, n, spread);
      const std::vector<float> logits = x;
      x.resize(test::padded(n), std::nanf(""));
      float maximum = 0.0f;
      const float sum = kernels::exponentials(x.data(), n, maximum);
      ASSERT_EQ(maximum, *std::max_element(logits.begin(), logits.end()));
      double expected_sum = 0.0;
      for (std::size_t j = 0; j < n; ++j) {
        const float difference = logits[j] - maximum;
        const double expected = difference > -87.0f ? std::exp(static_cast<double>(difference)) : 0.0;
        ASSERT_NEAR(x[j], expected, 3e-7 * expected) << difference;
        expected_sum += expected;
      }
      for (std::size_t j = n; j < x.size(); ++j) ASSERT_EQ(x[j], 0.0f);
      ASSERT_NEAR(sum, expected_sum, 1e-6 * expected_sum);
    }
}

TEST_P(DecodeKernels, ExpIsAccurateOverItsWholeRange) {
  std::vector<float> x(16);
  for (int i = 0; i < 90'000; i += 15) {
    x[0] = 0.0f;  // the maximum
    for (int j = 1; j < 16; ++j) x[static_cast<std::size_t>(j)] = -static_cast<float>(i + j) * 0.001f;
    const std::vector<float> logits = x;
    float maximum = 0.0f;
    (void)kernels::exponentials(x.data(), 16, maximum);
    for (std::size_t j = 0; j < 16; ++j) {
      const double expected = logits[j] > -87.0f ? std::exp(static_cast<double>(logits[j])) : 0.0;
      ASSERT_NEAR(x[j], expected, 3e-7 * expected) << logits[j];
    }
  }
}

template <class V>
void check_weighted_sum(std::size_t dim, std::size_t group, std::size_t n) {
  SCOPED_TRACE(testing::Message() << "dim " << dim << " group " << group << " n " << n);
  Random random(dim * 1000 + group * 10 + n);
  const PackedValues<V> values(random, n, dim);
  const std::size_t stride = test::padded(n);
  std::vector<float> p(group * stride, std::nanf(""));
  for (std::size_t g = 0; g < group; ++g)
    for (std::size_t j = 0; j < n; ++j) p[g * stride + j] = static_cast<float>(random.uniform());
  std::vector<float> out(group * values.row_size, std::nanf(""));
  kernels::weighted_sum(p.data(), stride, group, values.rows.data(), values.row_size, n, out.data());
  for (std::size_t g = 0; g < group; ++g)
    for (std::size_t d = 0; d < values.row_size; ++d) {
      double expected = 0.0;
      double size = 0.0;
      for (std::size_t j = 0; d < dim && j < n; ++j) {
        const double x = static_cast<double>(p[g * stride + j]) * static_cast<double>(values.row(j)[d]);
        expected += x;
        size += std::abs(x);
      }
      ASSERT_NEAR(out[g * values.row_size + d], expected, 1e-6 * size) << "row " << g << " dim " << d;
    }
}

template <class V>
void check_weighted_sum() {
  for (const std::size_t dim : kDims)
    for (const std::size_t group : kGroups) check_weighted_sum<V>(dim, group, 33);
  for (const std::size_t n : kLengths) {
    check_weighted_sum<V>(64, 3, n);
    check_weighted_sum<V>(80, 1, n);
    check_weighted_sum<V>(5, 8, n);
  }
}

TEST_P(DecodeKernels, WeightedSumReadsEveryValueRowOnce) {
  check_weighted_sum<float>();
  check_weighted_sum<f16>();
  check_weighted_sum<bf16>();
}

INSTANTIATE_TEST_SUITE_P(Levels, DecodeKernels, testing::ValuesIn(test::available_isas()), test::isa_of);

}  // namespace
}  // namespace zeromerge
