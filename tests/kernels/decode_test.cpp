// kernels/cpu/decode.inl and what it is made of, at every level and for every stored type, against double.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "support/isa.hpp"
#include "support/kernel_rows.hpp"

namespace zeromerge {
namespace {

using test::Packing;
using test::Queries;
using test::Random;
using test::StoredKeys;
using test::StoredValues;

constexpr std::size_t kDims[] = {1, 5, 8, 24, 64, 72, 80, 96, 128, 256};
constexpr std::size_t kGroups[] = {1, 2, 3, 4, 8, 16, 71};
constexpr std::size_t kLengths[] = {1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 255, 256, 511, 512};

class DecodeKernels : public test::EachIsa {};

// What the level's instructions may add to a product's error, relative to the sum of magnitudes: bf16 dot
// products round the f32 side to 8 bits, byte products the query to 8 bits of its largest channel (for q4 of
// its largest channel times step) and weights to 15.
template <class T>
double tolerance() {
  if (isa() >= Isa::avx512bf16 && std::is_same_v<T, bf16>) return 5e-3;
  return 1e-6;
}

template <class K>
void check_logits(std::size_t dim, std::size_t group, std::size_t n, Packing packing) {
  SCOPED_TRACE(testing::Message() << storage_name(storage_of<K>) << " dim " << dim << " group " << group
                                  << " n " << n << name_of(packing));
  Random random(dim * 1000 + group * 10 + n);
  const StoredKeys<K> keys(random, n, dim, packing);
  const Queries q(random, group, dim);
  auto rows = q.scaled();
  kernels::prepare(rows.data(), q.stride, group, keys.rows.view());
  const std::size_t stride = test::padded(n) + 16;
  std::vector<float> logits(group * stride, -1.0f);
  kernels::logits(rows.data(), q.stride, group, keys.rows.view(), 0, test::padded(n) / 16, logits.data(),
                  stride, nullptr);
  const float* scale = kernels::row_scales(keys.rows.view(), 0);
  for (std::size_t g = 0; g < group; ++g) {
    double step = 0.0;  // of a query channel in bytes
    for (std::size_t d = 0; d < dim; ++d)
      step = std::max(step, std::abs(static_cast<double>(q.row(g)[d])) / 127.0);
    const bool bytes = isa() >= Isa::avx512vnni && (std::is_same_v<K, q8> || std::is_same_v<K, q4>);
    // A channel of normal numbers lies in [-5, 5]: its step is at most 10 / 15, and a code 7.5 from the
    // middle.
    const double reach = std::is_same_v<K, q4> ? 7.5 * 10.0 / 15.0 : 0.0;
    for (std::size_t j = 0; j < n; ++j) {
      double expected = 0.0;
      double size = 0.0;
      double rounding = 0.0;
      for (std::size_t d = 0; d < dim; ++d) {
        const double k = static_cast<double>(keys.row(j)[d]);
        expected += static_cast<double>(q.row(g)[d]) * k;
        size += std::abs(static_cast<double>(q.row(g)[d]) * k);
        // q4 adds up minima and nibbles apart: a channel's whole range counts.
        if (std::is_same_v<K, q4>) size += 5.0 * std::abs(static_cast<double>(q.row(g)[d]));
        rounding += bytes ? 0.51 * step * std::max(std::abs(k), reach) : 0.0;
      }
      const double got = static_cast<double>(logits[g * stride + j]) *
                         (scale != nullptr ? static_cast<double>(scale[j]) : 1.0);
      ASSERT_NEAR(got * std::log(2.0), expected, tolerance<K>() * size + rounding)
          << "row " << g << " entry " << j;
    }
    for (std::size_t j = test::padded(n); j < stride; ++j)
      ASSERT_EQ(logits[g * stride + j], -1.0f) << "written beyond";
  }
}

template <class K>
void check_logits(Packing packing = Packing::settled) {
  for (const std::size_t dim : kDims)
    for (const std::size_t group : kGroups) check_logits<K>(dim, group, 49, packing);
  for (const std::size_t n : kLengths) {
    check_logits<K>(64, 3, n, packing);
    check_logits<K>(24, 1, n, packing);
    check_logits<K>(5, 8, n, packing);
  }
}

TEST_P(DecodeKernels, LogitsAreScaledProducts) {
  check_logits<float>();
  check_logits<f16>();
  check_logits<bf16>();
  check_logits<q8>();
  check_logits<q4>();
  check_logits<q4>(Packing::reopened);
  check_logits<q4>(Packing::none);
}

TEST_P(DecodeKernels, LogitsReadNothingBehindTheTiles) {
  for (const std::size_t dim : {1u, 3u, 5u, 7u, 15u, 17u, 33u})
    for (const std::size_t group : {1u, 2u, 3u, 4u, 5u}) {
      Random random(dim);
      const std::size_t tiles = 3;
      std::vector<float> keys = test::normals(random, tiles * dim * 16);
      const std::vector<float> plain = keys;
      keys.resize(keys.size() + 256, std::nanf(""));
      const Queries q(random, group, dim);
      std::vector<float> out(group * 48);
      kernels::logits(q.rows.data(), q.stride, group, kernels::KeyTiles<float>{keys.data(), dim, nullptr}, 0,
                      tiles, out.data(), 48, nullptr);
      for (std::size_t g = 0; g < group; ++g)
        for (std::size_t j = 0; j < 48; ++j) {
          double expected = 0.0;
          for (std::size_t d = 0; d < dim; ++d)
            expected += static_cast<double>(q.row(g)[d]) *
                        static_cast<double>(plain[(j / 16 * dim + d) * 16 + j % 16]);
          ASSERT_NEAR(out[g * 48 + j], expected, 1e-5)
              << "group " << group << " dim " << dim << " entry " << j;
        }
    }
}

TEST_P(DecodeKernels, LogitsBeginAtAnySegment) {
  Random random(3);
  const StoredKeys<q4> keys(random, 700, 24);
  const Queries q(random, 3, 24);
  const auto rows = q.scaled();
  std::vector<float> all(3 * 704), part(3 * 192);
  for (const std::size_t first : {0u, 256u, 512u}) {
    const std::size_t tiles = std::min<std::size_t>(16, (704 - first) / 16);
    kernels::logits(rows.data(), q.stride, 3, keys.rows.view(), first, tiles, all.data() + first, 704,
                    nullptr);
  }
  kernels::logits(rows.data(), q.stride, 3, keys.rows.view(), 512, 12, part.data(), 192, nullptr);
  for (std::size_t g = 0; g < 3; ++g)
    for (std::size_t j = 0; j < 188; ++j) ASSERT_EQ(part[g * 192 + j], all[g * 704 + 512 + j]);
}

TEST_P(DecodeKernels, ExponentialsScaleCapBiasSubtractTheMaximumAndZeroThePadding) {
  for (const std::size_t n : kLengths)
    for (const double spread : {0.01, 1.0, 40.0})
      for (int what = 0; what < 8; ++what) {
        SCOPED_TRACE(testing::Message() << "n " << n << " spread " << spread << " what " << what);
        Random random(n);
        std::vector<float> x = test::normals(random, n, spread);
        std::vector<float> scale = test::normals(random, n);
        std::vector<float> bias = test::normals(random, n);
        const double cap = (what & 2) != 0 ? 5.0 : 0.0;
        std::vector<double> logit(n);
        for (std::size_t j = 0; j < n; ++j) {
          double y = static_cast<double>(x[j]) * std::log(2.0);
          if ((what & 1) != 0) y *= static_cast<double>(scale[j]);
          if (cap > 0.0) y = cap * std::tanh(y / cap);
          if ((what & 4) != 0) y += static_cast<double>(bias[j]);
          logit[j] = y / std::log(2.0);
        }
        for (std::vector<float>* v : {&x, &scale, &bias}) v->resize(test::padded(n), 1.0f);
        float maximum = 0.0f;
        const float sum =
            kernels::exponentials(x.data(), n, (what & 1) != 0 ? scale.data() : nullptr,
                                  static_cast<float>(cap), (what & 4) != 0 ? bias.data() : nullptr, maximum);
        const double top = *std::max_element(logit.begin(), logit.end());
        ASSERT_NEAR(maximum, top, 1e-5 + 1e-6 * std::abs(top));
        double expected_sum = 0.0;
        for (std::size_t j = 0; j < n; ++j) {
          const double expected = std::exp2(logit[j] - static_cast<double>(maximum));
          ASSERT_NEAR(x[j], expected, 2e-38 + expected * (3e-6 + 3e-7 * std::abs(logit[j]))) << logit[j];
          expected_sum += expected;
        }
        for (std::size_t j = n; j < x.size(); ++j) ASSERT_EQ(x[j], 0.0f);
        ASSERT_NEAR(sum, expected_sum, 3e-5 * expected_sum);
      }
}

TEST_P(DecodeKernels, Exp2IsAccurateOverItsWholeRange) {
  std::vector<float> x(16);
  for (int i = 0; i < 130'000; i += 15) {
    x[0] = 0.0f;  // the maximum
    for (int j = 1; j < 16; ++j) x[static_cast<std::size_t>(j)] = -static_cast<float>(i + j) * 0.001f;
    const std::vector<float> logits = x;
    float maximum = 0.0f;
    (void)kernels::exponentials(x.data(), 16, nullptr, 0.0f, nullptr, maximum);
    ASSERT_EQ(x[0], 1.0f);
    for (std::size_t j = 0; j < 16; ++j) {
      const double expected = std::exp2(static_cast<double>(logits[j]));
      ASSERT_NEAR(x[j], expected, 3e-7 * expected + (logits[j] < -126.0f ? 2e-38 : 0.0)) << logits[j];
    }
  }
}

template <class V>
void check_weighted_sum(std::size_t dim, std::size_t group, std::size_t n, Packing packing) {
  SCOPED_TRACE(testing::Message() << storage_name(storage_of<V>) << " dim " << dim << " group " << group
                                  << " n " << n << name_of(packing));
  Random random(dim * 1000 + group * 10 + n);
  const StoredValues<V> values(random, n, dim, packing);
  const std::size_t row_size = test::padded(dim);
  const std::size_t stride = test::padded(n);
  std::vector<float> p(group * stride);
  for (std::size_t g = 0; g < group; ++g)
    for (std::size_t j = 0; j < n; ++j) p[g * stride + j] = static_cast<float>(random.uniform());
  std::vector<float> out(group * row_size, std::nanf(""));
  kernels::weighted_sum(p.data(), stride, group, values.rows.view(), 0, n, out.data(), nullptr);
  double largest = 0.0;
  for (const float x : values.plain) largest = std::max(largest, std::abs(static_cast<double>(x)));
  for (std::size_t g = 0; g < group; ++g)
    for (std::size_t d = 0; d < row_size; ++d) {
      double expected = 0.0;
      double size = 0.0;
      for (std::size_t j = 0; d < dim && j < n; ++j) {
        const double x = static_cast<double>(p[g * stride + j]) * static_cast<double>(values.row(j)[d]);
        expected += x;
        size += std::abs(x);
      }
      // Weights of bytes in units of 1 / 32639 of the largest weight times scale: half of one per entry, and
      // what a row's code can be, whose scale times code is at most twice the largest value.
      const bool bytes = isa() >= Isa::avx512vnni && (std::is_same_v<V, q8> || std::is_same_v<V, q4>);
      const double most = std::is_same_v<V, q4> ? 2.0 * largest : largest;
      const double rounding = bytes ? 0.51 * most / 32639.0 * static_cast<double>(n) : 0.0;
      // q4 adds up minima and nibbles apart, of one magnitude with the values' range.
      const double apart = std::is_same_v<V, q4> ? tolerance<V>() * 8.0 * static_cast<double>(n) : 0.0;
      if (d >= dim && std::is_same_v<V, q4>) continue;  // what pads a quantised row is not asked for
      ASSERT_NEAR(out[g * row_size + d], expected, 2.0 * tolerance<V>() * size + rounding + apart)
          << "row " << g << " dim " << d;
    }
}

template <class V>
void check_weighted_sum(Packing packing = Packing::settled) {
  for (const std::size_t dim : kDims)
    for (const std::size_t group : kGroups) check_weighted_sum<V>(dim, group, 49, packing);
  for (const std::size_t n : kLengths) {
    check_weighted_sum<V>(64, 3, n, packing);
    check_weighted_sum<V>(80, 1, n, packing);
    check_weighted_sum<V>(5, 8, n, packing);
  }
}

TEST_P(DecodeKernels, WeightedSumReadsEveryValueRowOnce) {
  check_weighted_sum<float>();
  check_weighted_sum<f16>();
  check_weighted_sum<bf16>();
  check_weighted_sum<q8>();
  check_weighted_sum<q4>();
  check_weighted_sum<q4>(Packing::reopened);
  check_weighted_sum<q4>(Packing::none);
}

INSTANTIATE_TEST_SUITE_P(Levels, DecodeKernels, testing::ValuesIn(test::available_isas()), test::isa_of);

}  // namespace
}  // namespace zeromerge
