// kernels/cpu/prefill.inl at every level against double.
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
          const std::size_t ldb = columns + 16;
          const std::size_t ldc = columns + 32;
          const auto a = test::normals(random, rows * lda);
          const auto b = test::normals(random, depth * ldb);
          auto c = test::normals(random, rows * ldc);
          const auto before = c;
          kernels::product(a.data(), lda, b.data(), ldb, c.data(), ldc, rows, columns, depth, accumulate);
          for (std::size_t r = 0; r < rows; ++r)
            for (std::size_t n = 0; n < ldc; ++n) {
              if (n >= columns) {
                ASSERT_EQ(c[r * ldc + n], before[r * ldc + n]) << "written beyond";
                continue;
              }
              double expected = accumulate ? static_cast<double>(before[r * ldc + n]) : 0.0;
              double size = std::abs(expected);
              for (std::size_t k = 0; k < depth; ++k) {
                const double x = static_cast<double>(a[r * lda + k]) * static_cast<double>(b[k * ldb + n]);
                expected += x;
                size += std::abs(x);
              }
              ASSERT_NEAR(c[r * ldc + n], expected, 5e-7 * size) << r << ", " << n;
            }
        }
}

// A block of stacked rows with limits that rise, over keys and values of given types.
template <class K, class V>
struct Block {
  Random random;
  std::size_t count, n, dim;
  double softcap;
  PackedKeys<K> keys;
  PackedValues<V> values;
  PackedQueries q;
  std::vector<std::size_t> limit;
  std::vector<float> memory;
  std::vector<float> lse;

  Block(std::size_t rows, std::size_t group, std::size_t entries, std::size_t head_dim, bool biased,
        double cap)
      : random(rows * 7 + group * 31 + entries * 101 + head_dim),
        count(rows),
        n(entries),
        dim(head_dim),
        softcap(cap),
        keys(random, n, dim, biased),
        values(random, n, dim),
        q(random, count, dim),
        lse(count, std::nanf("")) {
    const std::size_t tokens = (rows + group - 1) / group;
    for (std::size_t r = 0; r < rows; ++r) limit.push_back(n - std::min(n - 1, tokens - 1 - r / group));
  }

  kernels::PrefillRows rows() const { return {q.rows.data(), q.stride, count, limit.data()}; }
  kernels::PrefillScratch scratch() {
    const std::size_t wide = std::max(2 * keys.pairs, values.row_size) * kernels::kKeyBlock;
    const std::size_t logits = kernels::kRowBlock * kernels::kKeyBlock;
    memory.assign(wide + logits + 2 * kernels::kRowBlock, std::nanf(""));
    float* p = memory.data();
    return {p, p + wide, p + wide + logits, p + wide + logits + kernels::kRowBlock};
  }
  test::Attention expected(std::size_t r) const {
    return test::expected_row(q.row(r), keys, values, limit[r], softcap);
  }
};

template <class K, class V>
void check_attend(std::size_t rows, std::size_t group, std::size_t n, std::size_t dim, bool biased,
                  double softcap) {
  SCOPED_TRACE(testing::Message() << "rows " << rows << " group " << group << " n " << n << " dim " << dim
                                  << " softcap " << softcap << (biased ? " biased" : ""));
  Block<K, V> block(rows, group, n, dim, biased, softcap);
  const std::size_t row_size = block.values.row_size;
  std::vector<float> out(rows * row_size, std::nanf(""));
  kernels::attend_rows(block.rows(), block.keys.view(), block.values.rows.data(), row_size,
                       static_cast<float>(softcap), block.scratch(), out.data(), block.lse.data());
  for (std::size_t r = 0; r < rows; ++r) {
    const test::Attention expected = block.expected(r);
    ASSERT_NEAR(block.lse[r], expected.lse, 1e-5) << "row " << r;
    for (std::size_t d = 0; d < row_size; ++d)
      ASSERT_NEAR(out[r * row_size + d], d < dim ? expected.out[d] : 0.0, 1e-5)
          << "row " << r << " dim " << d;
  }
}

template <class K, class V>
void check_attend() {
  for (const std::size_t dim : {1u, 5u, 8u, 24u, 64u, 80u, 96u, 128u, 256u})
    check_attend<K, V>(7, 1, 70, dim, false, 0.0);
  for (const std::size_t n : {1u, 15u, 16u, 17u, 63u, 64u, 65u, 128u, 257u}) {
    check_attend<K, V>(12, 3, n, 64, true, 0.0);
    check_attend<K, V>(9, 4, n, 24, false, 1.5);
  }
  for (const std::size_t group : {1u, 3u, 4u, 8u, 71u}) check_attend<K, V>(71, group, 130, 24, true, 1.5);
  check_attend<K, V>(kernels::kRowBlock, 1, 300, 5, true, 0.0);
}

TEST_P(PrefillKernels, RowsAttendToTheEntriesBelowTheirLimit) {
  check_attend<float, float>();
  check_attend<f16, f16>();
  check_attend<bf16, bf16>();
  check_attend<f16, float>(9, 3, 65, 64, true, 0.0);
}

template <class K>
void check_columns(std::size_t rows, std::size_t group, std::size_t n, std::size_t dim, double softcap) {
  SCOPED_TRACE(testing::Message() << "rows " << rows << " group " << group << " n " << n << " dim " << dim);
  Block<K, float> block(rows, group, n, dim, n % 2 == 1, softcap);
  std::vector<float> weight(rows);
  for (float& w : weight) w = static_cast<float>(block.random.uniform());
  std::vector<double> expected(n, 0.25);
  for (std::size_t r = 0; r < rows; ++r) {
    const test::Attention row = block.expected(r);
    block.lse[r] = static_cast<float>(row.lse);
    for (std::size_t j = 0; j < block.limit[r]; ++j)
      expected[j] += static_cast<double>(weight[r]) * row.probability[j];
  }
  std::vector<float> column(test::padded(n), 0.25f);
  for (std::size_t first = 0; first < n; first += kernels::kKeyBlock)
    kernels::column_mass(block.rows(), weight.data(), block.lse.data(), block.keys.view(), first,
                         test::padded(std::min(kernels::kKeyBlock, n - first)), static_cast<float>(softcap),
                         block.scratch(), column.data() + first);
  for (std::size_t j = 0; j < n; ++j)
    ASSERT_NEAR(column[j], expected[j], 1e-5 * (1.0 + expected[j])) << "entry " << j;
}

TEST_P(PrefillKernels, ColumnMassAddsWeightedProbabilitiesPerEntry) {
  for (const std::size_t n : {1u, 16u, 17u, 63u, 64u, 65u, 200u}) {
    check_columns<float>(30, 3, n, 64, 0.0);
    check_columns<f16>(30, 1, n, 80, 0.0);
    check_columns<bf16>(95, 4, n, 5, 2.0);
  }
}

INSTANTIATE_TEST_SUITE_P(Levels, PrefillKernels, testing::ValuesIn(test::available_isas()), test::isa_of);

}  // namespace
}  // namespace zeromerge
