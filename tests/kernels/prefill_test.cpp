// kernels/cpu/prefill.inl and column_maxima.inl at every level against double.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "support/isa.hpp"
#include "support/kernel_rows.hpp"
#include "zeromerge/kernels/prefill_buffer.hpp"

namespace zeromerge {
namespace {

using test::Queries;
using test::Random;
using test::StoredKeys;
using test::StoredValues;

class PrefillKernels : public test::EachIsa {};

TEST_P(PrefillKernels, ProductEqualsTheSumsOfProducts) {
  Random random(5);
  for (std::size_t rows = 1; rows <= 20; ++rows)
    for (const std::size_t columns : {16u, 32u, 48u, 80u})
      for (const std::size_t depth : {1u, 3u, 64u})
        for (const bool accumulate : {false, true}) {
          SCOPED_TRACE(testing::Message()
                       << rows << " x " << columns << " x " << depth << (accumulate ? " added" : ""));
          const std::size_t lda = depth + 2;
          const std::size_t panel = (depth + 1) * 16;
          const std::size_t ldc = columns + 32;
          const auto a = test::normals(random, rows * lda);
          const auto b = test::normals(random, columns / 16 * panel);
          auto c = test::normals(random, rows * ldc);
          const auto before = c;
          kernels::product(a.data(), lda, b.data(), panel, c.data(), ldc, rows, columns, depth, accumulate);
          for (std::size_t r = 0; r < rows; ++r)
            for (std::size_t n = 0; n < ldc; ++n) {
              if (n >= columns) {
                ASSERT_EQ(c[r * ldc + n], before[r * ldc + n]) << "written beyond";
                continue;
              }
              double expected = accumulate ? static_cast<double>(before[r * ldc + n]) : 0.0;
              double size = std::abs(expected);
              for (std::size_t k = 0; k < depth; ++k) {
                const double x = static_cast<double>(a[r * lda + k]) *
                                 static_cast<double>(b[n / 16 * panel + k * 16 + n % 16]);
                expected += x;
                size += std::abs(x);
              }
              ASSERT_NEAR(c[r * ldc + n], expected, 5e-7 * size) << r << ", " << n;
            }
        }
}

// Of q4 rows, by how many there are.
test::Packing packing_of(std::size_t n) {
  return n % 4 == 1 ? test::Packing::reopened : n % 4 == 3 ? test::Packing::none : test::Packing::settled;
}

// A block of stacked rows with limits that rise, over keys and values of given types.
template <class K, class V>
struct Block {
  Random random;
  std::size_t count, n, dim, row_size;
  double softcap;
  StoredKeys<K> keys;
  StoredValues<V> values;
  Queries q;
  std::vector<float> bias, scaled, sink;
  std::vector<std::size_t> limit;
  std::vector<float> memory;

  Block(std::size_t rows, std::size_t group, std::size_t entries, std::size_t head_dim, bool biased,
        double cap)
      : random(rows * 7 + group * 31 + entries * 101 + head_dim),
        count(rows),
        n(entries),
        dim(head_dim),
        row_size(test::padded(head_dim)),
        softcap(cap),
        keys(random, n, dim, packing_of(n)),
        values(random, n, dim, packing_of(n)),
        q(random, count, dim),
        scaled(q.scaled()) {
    if (biased) bias = test::normals(random, n);
    bias.resize(biased ? test::padded(n) : 0);
    const std::size_t tokens = (rows + group - 1) / group;
    for (std::size_t r = 0; r < rows; ++r) limit.push_back(n - std::min(n - 1, tokens - 1 - r / group));
  }

  kernels::PrefillRows rows() const {
    return {scaled.data(),
            q.stride,
            count,
            limit.data(),
            bias.empty() ? nullptr : bias.data(),
            sink.empty() ? nullptr : sink.data(),
            static_cast<float>(softcap)};
  }
  kernels::PrefillScratch scratch() {
    const std::size_t wide = std::max(test::padded(dim), row_size) * kernels::kKeyBlock;
    const std::size_t logits = kernels::kRowBlock * kernels::kKeyBlock;
    const std::size_t stride = (n + 63) / 64 * 64 + 16;
    constexpr std::size_t kRows = kernels::kRowBlock;
    memory.assign(wide + count * q.stride + logits + 4 * kRows + count * stride, std::nanf(""));
    float* p = memory.data();
    float* rows = p + wide;
    float* logit = rows + count * q.stride;
    float* sums = logit + logits;
    return {p, rows, logit, sums, sums + kRows, sums + 2 * kRows, sums + 4 * kRows, stride, sums + 3 * kRows};
  }
  test::Attention expected(std::size_t r) const {
    test::Attention a = test::expected_row(q.row(r), keys, values, bias, limit[r], softcap);
    if (sink.empty()) return a;
    // One more logit in the sum.
    const double s = static_cast<double>(sink[r]) * std::log(2.0);
    const double factor = 1.0 / (1.0 + std::exp(s - a.lse));
    for (double& x : a.out) x *= factor;
    for (double& x : a.probability) x *= factor;
    a.lse -= std::log(factor);
    return a;
  }
  // From now on expected() is of queries, in units of log 2, and keys that are rounded.
  void round_to_bf16() {
    for (std::size_t i = 0; i < scaled.size(); ++i)
      q.rows[i] = to_f32(from_f32<bf16>(scaled[i])) / kernels::kLog2E;
    for (float& x : keys.plain) x = to_f32(from_f32<bf16>(x));
  }
  // The exponentials stay, and in `sum` what makes them probabilities.
  void check_strip() {
    const std::vector<float> left = memory;
    const kernels::PrefillScratch s = scratch();
    const float* strip = left.data() + (s.strip - memory.data());
    const float* sum = left.data() + (s.sum - memory.data());
    for (std::size_t r = 0; r < count; ++r) {
      const test::Attention a = expected(r);
      for (std::size_t j = 0; j < limit[r]; ++j)
        ASSERT_NEAR(strip[r * s.strip_stride + j] * sum[r], a.probability[j], 4e-5)
            << "row " << r << " entry " << j;
    }
  }
  // What a pass over all rows has left, against the log, base 2, of the sum without entry 0.
  void check_local(const char* pass) const {
    const float* local = memory.data() + (test::padded(dim) * kernels::kKeyBlock) + count * q.stride +
                         kernels::kRowBlock * (kernels::kKeyBlock + 3);
    for (std::size_t r = 0; r < count; ++r) {
      const test::Attention a = expected(r);
      if (limit[r] == 1 && sink.empty()) {
        ASSERT_EQ(local[r], kernels::kMasked) << pass << " row " << r;
        continue;
      }
      ASSERT_NEAR(local[r], (a.lse + std::log1p(-a.probability[0])) / std::log(2.0), 1e-4)
          << pass << " row " << r;
    }
  }
};

template <class K, class V>
void check_attend(std::size_t rows, std::size_t group, std::size_t n, std::size_t dim, bool biased,
                  double softcap, bool sinks = false) {
  SCOPED_TRACE(testing::Message() << "rows " << rows << " group " << group << " n " << n << " dim " << dim
                                  << " softcap " << softcap << (biased ? " biased" : "")
                                  << (sinks ? " sinks" : ""));
  Block<K, V> block(rows, group, n, dim, biased, softcap);
  if (sinks) block.sink = test::normals(block.random, rows, 2.0);
  const auto keys = block.keys.rows.view();
  const auto values = block.values.rows.view();
  std::vector<float> weight(rows);
  for (float& w : weight) w = static_cast<float>(block.random.uniform());
  std::vector<float> out(rows * block.row_size, std::nanf(""));
  std::vector<float> again = out;
  std::vector<float> sum(test::padded(n), 0.25f);
  std::vector<float> most(test::padded(n), 0.25f);
  kernels::attend_rows(block.rows(), kernels::wide(keys), kernels::wide(values), block.scratch(), out.data());
  block.check_local("plain");
  kernels::attend_rows_with_columns(block.rows(), weight.data(), kernels::ColumnStatistic::sum,
                                    kernels::wide(keys), kernels::wide(values), block.scratch(), again.data(),
                                    sum.data());
  block.check_local("with columns");
  kernels::attend_rows_with_columns(block.rows(), weight.data(), kernels::ColumnStatistic::maximum,
                                    kernels::wide(keys), kernels::wide(values), block.scratch(), again.data(),
                                    most.data());
  block.check_strip();
  // Tiles split numbers into two of bf16.
  const double most_off =
      isa() >= Isa::amx && !std::is_same_v<K, float> && !std::is_same_v<V, float> ? 4e-5 : 1e-5;
  std::vector<double> expected_sum(n, 0.25), expected_most(n, 0.25);
  for (std::size_t r = 0; r < rows; ++r) {
    const test::Attention expected = block.expected(r);
    for (std::size_t d = 0; d < dim; ++d) {
      ASSERT_NEAR(out[r * block.row_size + d], expected.out[d], most_off) << "row " << r << " dim " << d;
      ASSERT_NEAR(again[r * block.row_size + d], expected.out[d], most_off) << "row " << r << " dim " << d;
    }
    for (std::size_t j = 0; j < block.limit[r]; ++j) {
      const double x = static_cast<double>(weight[r]) * expected.probability[j];
      expected_sum[j] += x;
      expected_most[j] = std::max(expected_most[j], x);
    }
  }
  for (std::size_t j = 0; j < n; ++j) {
    ASSERT_NEAR(sum[j], expected_sum[j], most_off * (1.0 + expected_sum[j])) << "entry " << j;
    ASSERT_NEAR(most[j], expected_most[j], most_off) << "entry " << j;
  }
}

// Rows that all see everything: the largest probabilities, whatever was there before.
template <class K>
void check_maxima(std::size_t rows, std::size_t n, std::size_t dim, bool biased, double softcap, bool sinks) {
  SCOPED_TRACE(testing::Message() << "rows " << rows << " n " << n << " dim " << dim << " softcap " << softcap
                                  << (biased ? " biased" : "") << (sinks ? " sinks" : ""));
  Block<K, K> block(rows, 1, n, dim, biased, softcap);
  std::fill(block.limit.begin(), block.limit.end(), n);
  if (sinks) block.sink = test::normals(block.random, rows, 2.0);
  const float before = 0.5f / static_cast<float>(n);
  std::vector<float> most(test::padded(n), before);
  const kernels::ReadyKeys keys(kernels::wide(block.keys.rows.view()), n);
  kernels::column_maxima(block.rows(), keys.view(), block.scratch(), most.data());
  if (isa() >= Isa::avx512bf16 && !std::is_same_v<K, float>) block.round_to_bf16();
  std::vector<double> expected(n, static_cast<double>(before));
  for (std::size_t r = 0; r < rows; ++r) {
    const test::Attention a = block.expected(r);
    for (std::size_t j = 0; j < n; ++j) expected[j] = std::max(expected[j], a.probability[j]);
  }
  for (std::size_t j = 0; j < n; ++j)
    ASSERT_NEAR(most[j], expected[j], 1e-4 * expected[j] + 1e-6) << "entry " << j;
}

TEST_P(PrefillKernels, LargestProbabilitiesOfRowsThatSeeEverything) {
  for (const std::size_t dim : {1u, 5u, 8u, 24u, 40u, 64u, 80u, 128u, 256u})
    check_maxima<f16>(33, 150, dim, false, 0.0, true);
  for (const std::size_t n : {1u, 15u, 16u, 17u, 63u, 64u, 65u, 200u})
    for (const std::size_t rows : {1u, 2u, 40u}) check_maxima<f16>(rows, n, 64, n % 2 == 1, 0.0, rows == 2);
  check_maxima<float>(20, 130, 64, true, 5.0, true);
  check_maxima<q8>(20, 130, 64, false, 0.0, false);
  check_maxima<q4>(20, 130, 24, false, 0.0, true);
  check_maxima<bf16>(20, 130, 96, true, 0.0, true);
}

template <class K, class V>
void check_attend() {
  for (const std::size_t dim : {1u, 5u, 8u, 24u, 64u, 80u, 96u, 128u, 256u})
    check_attend<K, V>(7, 1, 70, dim, false, 0.0);
  for (const std::size_t n : {1u, 15u, 16u, 17u, 63u, 64u, 65u, 128u, 257u}) {
    check_attend<K, V>(12, 3, n, 64, true, 0.0);
    check_attend<K, V>(9, 4, n, 24, false, 1.5, true);
  }
  for (const std::size_t group : {1u, 3u, 4u, 8u, 71u}) check_attend<K, V>(71, group, 130, 24, true, 1.5);
  check_attend<K, V>(71, 4, 130, 64, true, 0.0);
  check_attend<K, V>(kernels::kRowBlock, 1, 300, 96, true, 0.0);
  check_attend<K, V>(kernels::kRowBlock, 1, 300, 5, true, 0.0, true);
}

TEST_P(PrefillKernels, RowsAttendToTheEntriesBelowTheirLimitAndColumnsAddUp) {
  check_attend<float, float>();
  check_attend<f16, f16>();
  check_attend<bf16, bf16>();
  check_attend<q8, q8>();
  check_attend<q4, q4>();
  check_attend<f16, float>(9, 3, 65, 64, true, 0.0);
  check_attend<q4, bf16>(9, 3, 97, 64, true, 0.0);
}

#if defined(__x86_64__) && defined(__linux__)
// Of a thread: who computes with tiles beside the library, as llama.cpp does, shapes them once.
struct alignas(64) ShapeOfTiles {
  unsigned char bytes[64];
};
__attribute__((target("amx-tile"))) void load_shape(const ShapeOfTiles& shape) {
  asm volatile("ldtilecfg %0" : : "m"(shape));
}
__attribute__((target("amx-tile"))) ShapeOfTiles shape_now() {
  ShapeOfTiles shape;
  asm volatile("sttilecfg %0" : "=m"(shape));
  return shape;
}

TEST(Tiles, KeepTheShapeThatOthersHaveGivenThem) {
  if (detected_isa() < Isa::amx) GTEST_SKIP() << "this CPU has no tiles";
  const test::IsaScope level(Isa::amx);
  ShapeOfTiles own{};
  own.bytes[0] = 1;
  own.bytes[16] = 32;
  own.bytes[48] = 5;
  load_shape(own);
  Block<f16, f16> block(37, 3, 130, 64, false, 0.0);
  const auto keys = block.keys.rows.view();
  const auto values = block.values.rows.view();
  std::vector<float> out(block.count * block.row_size);
  kernels::attend_rows(block.rows(), kernels::wide(keys), kernels::wide(values), block.scratch(), out.data());
  const ShapeOfTiles after = shape_now();
  load_shape({});
  EXPECT_EQ(std::memcmp(&own, &after, sizeof own), 0);
}
#endif

INSTANTIATE_TEST_SUITE_P(Levels, PrefillKernels, testing::ValuesIn(test::available_isas()), test::isa_of);

}  // namespace
}  // namespace zeromerge
