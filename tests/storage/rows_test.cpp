// Keys and values in every stored type: what is written reads back within the type's step, entries move as
// they are, and the bytes are those promised.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

#include "support/random.hpp"
#include "zeromerge/storage/any_rows.hpp"

namespace zeromerge {
namespace {

using test::Random;

constexpr std::size_t kDims[] = {1, 5, 8, 24, 64, 80, 96, 128, 256};
constexpr std::size_t kCounts[] = {1, 15, 16, 17, 31, 32, 33, 63, 64, 65};

// Half a step of a row in this type: what rounding may change, and a little for the rounding of the step
// itself.
double half_step(StorageType type, float low, float high, double x) {
  const double most = std::max(std::abs(static_cast<double>(low)), std::abs(static_cast<double>(high)));
  switch (type) {
    case StorageType::f32:
      return 0.0;
    case StorageType::f16:
      return std::abs(x) * 0x1p-11 + 0x1p-25;
    case StorageType::bf16:
      return std::abs(x) * 0x1p-8 + 1e-40;
    case StorageType::q8:
      return most / 254.0 * 1.001;
    default:  // a q4 grid's end and step are f16, in steps of 2^-24 where that is all there is
      return static_cast<double>(high - low) / 30.0 * 1.01 + most * 0x1p-9 + 15.0 * 0x1p-25;
  }
}

template <class Rows>
struct Filled {
  std::size_t n, dim;
  ByteLedger ledger;
  Rows rows;
  std::vector<float> plain;

  Filled(StorageType type, std::size_t count, std::size_t head_dim, std::uint64_t seed, double scale = 1.0)
      : n(count), dim(head_dim), rows(head_dim, &ledger, type) {
    Random random(seed);
    plain = test::normals(random, n * dim, scale);
    rows.resize(n);
    for (std::size_t j = 0; j < n; ++j) rows.write(j, plain.data() + j * dim);
  }
  std::vector<float> row(std::size_t j) const {
    std::vector<float> x(dim);
    rows.read(j, x.data());
    return x;
  }
};

// The ends of the numbers that share a scale with element d of row j: for q4 keys the channel of the group,
// for q4 values 64 channels of the row; else the row.
template <class Rows>
std::pair<float, float> shared_range(const Filled<Rows>& f, StorageType type, bool keys, std::size_t j,
                                     std::size_t d) {
  float low = std::numeric_limits<float>::max(), high = -low;
  const auto take = [&](std::size_t row, std::size_t channel) {
    low = std::min(low, f.plain[row * f.dim + channel]);
    high = std::max(high, f.plain[row * f.dim + channel]);
  };
  if (type == StorageType::q4 && keys) {
    for (std::size_t i = j / 32 * 32; i < std::min(f.n, j / 32 * 32 + 32); ++i) take(i, d);
  } else {
    const std::size_t group = type == StorageType::q4 ? 64 : f.dim;
    for (std::size_t i = d / group * group; i < std::min(f.dim, d / group * group + group); ++i) take(j, i);
  }
  return {low, high};
}

// `tail`: how q4 stores what fills no group.
template <class Rows>
void expect_within_a_step(const Filled<Rows>& f, StorageType type, bool keys,
                          StorageType tail = StorageType::q8) {
  const std::size_t packed = type == StorageType::q4 ? f.n / 32 * 32 : 0;
  for (std::size_t j = 0; j < f.n; ++j) {
    const auto read = f.row(j);
    const bool behind = type == StorageType::q4 && j >= packed;
    const StorageType stored = behind ? tail : type;
    for (std::size_t d = 0; d < f.dim; ++d) {
      const double x = static_cast<double>(f.plain[j * f.dim + d]);
      const auto [low, high] = shared_range(f, stored, keys, j, d);
      // What settles has been f16 before.
      const double step =
          half_step(stored, low, high, x) + (behind ? half_step(StorageType::f16, low, high, x) : 0.0);
      ASSERT_NEAR(static_cast<double>(read[d]), x, step) << "row " << j << " of " << f.n << " dim " << d;
    }
  }
}

class StoredAs : public testing::TestWithParam<StorageType> {};
INSTANTIATE_TEST_SUITE_P(Types, StoredAs,
                         testing::Values(StorageType::f32, StorageType::f16, StorageType::bf16,
                                         StorageType::q8, StorageType::q4),
                         [](const auto& test) { return std::string(storage_name(test.param)); });

template <class Rows>
void check_reading(StorageType type, bool keys) {
  for (const std::size_t dim : kDims)
    for (const std::size_t n : kCounts) {
      SCOPED_TRACE(testing::Message() << (keys ? "keys " : "values ") << n << " x " << dim);
      Filled<Rows> f(type, n, dim, n * 300 + dim);
      f.rows.settle(n, n, 0);
      expect_within_a_step(f, type, keys);
      if (testing::Test::HasFailure()) return;
    }
}

TEST_P(StoredAs, RowsReadWithinHalfAStep) {
  check_reading<Keys<any_storage>>(GetParam(), true);
  check_reading<Values<any_storage>>(GetParam(), false);
}

template <class Rows>
void check_extremes(StorageType type, bool keys) {
  for (const double scale : {0.0, 1e-30, 1e-6, 1e4}) {
    SCOPED_TRACE(testing::Message() << (keys ? "keys" : "values") << " of magnitude " << scale);
    Filled<Rows> f(type, 64, 24, 9, scale);
    f.rows.settle(64, 64, 0);
    for (std::size_t j = 0; j < f.n; ++j)
      for (const float x : f.row(j)) ASSERT_TRUE(std::isfinite(x));
    if (scale != 1e-30) expect_within_a_step(f, type, keys);
    for (std::size_t j = 0; scale == 0.0 && j < f.n; ++j) ASSERT_EQ(f.row(j), std::vector<float>(24, 0.0f));
  }
}

TEST_P(StoredAs, ZerosTinyAndLargeRowsStayFinite) {
  check_extremes<Keys<any_storage>>(GetParam(), true);
  check_extremes<Values<any_storage>>(GetParam(), false);
}

// Moving an entry within what is stored plainly (all but q4's groups) changes no bit.
template <class Rows>
void check_moves(StorageType type) {
  Filled<Rows> f(type, 40, 24, 3);
  const auto third = f.row(3), last = f.row(39);
  f.rows.copy(f.rows, 3, 20);
  EXPECT_EQ(f.row(20), third);
  f.rows.exchange(3, 39);
  EXPECT_EQ(f.row(3), last);
  EXPECT_EQ(f.row(39), third);
  Filled<Rows> other(type, 40, 24, 4);
  other.rows.copy(f.rows, 39, 0);
  EXPECT_EQ(other.row(0), third);
  other.rows.swap(f.rows);
  EXPECT_EQ(f.row(0), third);
  other.rows.swap(f.rows);  // rows take their ledger with them, and it goes before they do
}

TEST_P(StoredAs, EntriesMoveAsTheyAre) {
  check_moves<Keys<any_storage>>(GetParam());
  check_moves<Values<any_storage>>(GetParam());
}

TEST_P(StoredAs, RowsTakeTheBytesPromised) {
  const std::size_t n = 4096, dim = 64;
  const bool packs =
      GetParam() == StorageType::q4;  // keys with 32 bits for 32 entries, values for 64 channels
  const double bits[] = {32.0, 16.0, 16.0, 8.0 + 32.0 / 64.0, 4.0};
  const double all = bits[static_cast<int>(GetParam())] / 8.0 * static_cast<double>(n * dim);
  const double expected[] = {all + (packs ? n * dim / 8.0 : 0.0), all + (packs ? n * dim / 16.0 : 0.0)};
  Filled<Keys<any_storage>> keys(GetParam(), n, dim, 1);
  Filled<Values<any_storage>> values(GetParam(), n, dim, 2);
  keys.rows.settle(n, n, 0);
  values.rows.settle(n, n, 0);
  const double tail = packs ? 32.0 * static_cast<double>(dim + 4) : 0.0;
  const std::size_t bytes[] = {keys.rows.bytes(), values.rows.bytes()};
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_GE(static_cast<double>(bytes[i]), expected[i]);
    EXPECT_LE(static_cast<double>(bytes[i]), expected[i] + tail + 2.0 * 4096.0);
  }
  EXPECT_EQ(keys.ledger.held(), keys.rows.bytes());
  keys.rows.clear();
  EXPECT_EQ(keys.ledger.held(), 0u);
}

// ---- the rows of q4 behind its groups

template <class Rows>
void check_window() {
  ByteLedger ledger;
  Rows rows(24, &ledger);
  Random random(8);
  rows.settle(0, 100, 0);
  std::vector<float> before(24);
  for (std::size_t j = 0; j < 70; ++j) {
    const auto x = test::normals(random, 24);
    rows.write(j, x.data());
    rows.pack(j + 1);
    ASSERT_EQ(rows.view().packed, (j + 1) / 32 * 32) << j;
    if (rows.view().packed > j) continue;
    std::vector<float> y(24);
    rows.read(j, y.data());
    float most = 0.0f;
    for (const float element : x) most = std::max(most, std::abs(element));
    for (std::size_t d = 0; d < 24; ++d) ASSERT_NEAR(y[d], x[d], most / 253.0f);
  }
}

// The last rows stay out of groups while new ones come, and nothing more is held for them than they need.
template <class Rows>
void check_loose(bool keys) {
  ByteLedger ledger;
  Rows rows(64, &ledger);
  Random random(9);
  rows.settle(0, 150, 20);
  for (std::size_t j = 0; j < 150; ++j) {
    rows.write(j, test::normals(random, 64).data());
    rows.pack(j + 1);
    ASSERT_EQ(rows.view().packed, j + 1 < 20 ? 0 : (j + 1 - 20) / 32 * 32) << j;
  }
  rows.settle(150, 151, 20);  // 128 in groups, 22 and the next one behind them
  const std::size_t packed = 128 * (keys ? 40 : 36);
  EXPECT_GE(rows.bytes(), packed + 23 * 68);
  EXPECT_LE(rows.bytes(), packed + 32 * 68);  // keys come in tiles of 16
  std::vector<float> before(64), after(64);
  rows.read(5, before.data());
  for (std::size_t round = 0; round < 100; ++round)
    rows.write(130 + round % 20, test::normals(random, 64, 5.0).data());
  rows.read(5, after.data());
  EXPECT_EQ(after, before);
  // More of them than before: groups are taken apart again, and what is read stays.
  std::vector<std::vector<float>> all(150, std::vector<float>(64));
  for (std::size_t j = 0; j < 150; ++j) rows.read(j, all[j].data());
  rows.settle(150, 151, 60);
  EXPECT_EQ(rows.view().packed, 64u);
  for (std::size_t j = 0; j < 150; ++j) {
    rows.read(j, after.data());
    float most = 0.0f;
    for (const float element : all[j]) most = std::max(most, std::abs(element));
    for (std::size_t d = 0; d < 64; ++d) ASSERT_NEAR(after[d], all[j][d], most / 253.0f) << "row " << j;
  }
}

TEST(PackedRows, TheLastOnesStayOutOfGroupsForGood) {
  check_loose<Keys<q4>>(true);
  check_loose<Values<q4>>(false);
}

// Rows behind the groups are f16 while a prompt comes and are rounded once on their way into a group; settled
// they take half of that, and another prompt finds what was left.
template <class Rows>
void check_reopening(bool keys) {
  Filled<Rows> f(StorageType::q4, 90, 64, 12);
  expect_within_a_step(f, StorageType::f16, keys);
  f.rows.settle(90, 90, 10);  // 64 in groups
  ASSERT_TRUE(f.rows.settled());
  std::vector<std::vector<float>> before;
  for (std::size_t j = 0; j < 90; ++j) before.push_back(f.row(j));
  const std::size_t settled = f.rows.bytes();
  f.rows.resize(120);
  EXPECT_FALSE(f.rows.settled());
  EXPECT_GT(f.rows.bytes(), settled + 56 * 128 - 32 * 68);
  for (std::size_t j = 0; j < 90; ++j) {
    const auto after = f.row(j);
    for (std::size_t d = 0; d < 64; ++d)
      ASSERT_NEAR(after[d], before[j][d], 0x1p-11f * std::abs(before[j][d]) + 1e-7f) << "row " << j;
  }
  f.rows.settle(90, 90, 10);
  f.rows.settle(90, 91, 10);  // nothing changes
  for (std::size_t j = 0; j < 64; ++j) ASSERT_EQ(f.row(j), before[j]) << "row " << j;
  f.rows.clear();
  EXPECT_EQ(f.ledger.held(), 0u);
}

// Out of all groups, packed or not before: what is read stays within a step of 8 bits, new rows come behind
// it as they are given, and nothing is held for groups. The other way they are packed as if they came anew.
template <class Rows>
void check_without_groups() {
  Filled<Rows> f(StorageType::q4, 90, 64, 14);
  f.rows.settle(90, 91, LooseRows::kAll);
  EXPECT_EQ(f.rows.view().packed, 0u);
  EXPECT_LE(f.rows.bytes(), 96u * 68);
  const auto expect_near = [&](const std::vector<std::vector<float>>& rows) {
    for (std::size_t j = 0; j < 90; ++j) {
      const auto read = f.row(j);
      float most = 0.0f;
      for (const float x : rows[j]) most = std::max(most, std::abs(x));
      for (std::size_t d = 0; d < 64; ++d)  // a step of f16 on the way
        ASSERT_NEAR(read[d], rows[j][d], most / 253.0f + std::abs(rows[j][d]) * 0x1p-11f) << "row " << j;
    }
  };
  std::vector<std::vector<float>> came;
  for (std::size_t j = 0; j < 90; ++j)
    came.emplace_back(f.plain.begin() + static_cast<std::ptrdiff_t>(j * 64),
                      f.plain.begin() + static_cast<std::ptrdiff_t>((j + 1) * 64));
  expect_near(came);
  const auto before = f.row(7);
  f.rows.write(90, f.plain.data());
  f.rows.pack(91);
  EXPECT_EQ(f.rows.view().packed, 0u);
  EXPECT_EQ(f.row(7), before);
  f.rows.settle(90, 91, 10);
  EXPECT_EQ(f.rows.view().packed, 64u);
  std::vector<std::vector<float>> packed;
  for (std::size_t j = 0; j < 90; ++j) packed.push_back(f.row(j));
  f.rows.settle(90, 91, LooseRows::kAll);
  EXPECT_EQ(f.rows.view().packed, 0u);
  expect_near(packed);
}

TEST(PackedRows, AllOfThemMayStayOutOfGroupsInBytes) {
  check_without_groups<Keys<q4>>();
  check_without_groups<Values<q4>>();
}

TEST(PackedRows, RowsBehindTheGroupsAreHalvesDuringAPromptAndBytesAfterIt) {
  check_reopening<Keys<q4>>(true);
  check_reopening<Values<q4>>(false);
}

TEST(PackedRows, AGroupIsPackedWhenItsThirtySecondEntryCame) {
  check_window<Keys<q4>>();
  check_window<Values<q4>>();
}

// What is written into a standing group stays near, and its neighbours do not drift although they are laid
// out anew.
template <class Rows>
void check_rewriting(bool keys) {
  Filled<Rows> f(StorageType::q4, 64, 64, 5);
  f.rows.settle(64, 64, 0);
  Random random(6);
  for (int round = 0; round < 200; ++round) {
    const std::size_t j = random.between(0, 63);
    const auto x = test::normals(random, 64, round % 7 == 0 ? 3.0 : 1.0);
    std::copy(x.begin(), x.end(), f.plain.begin() + static_cast<std::ptrdiff_t>(j * 64));
    f.rows.write(j, x.data());
    const auto read = f.row(j);
    for (std::size_t d = 0; d < 64; ++d) ASSERT_NEAR(read[d], x[d], 0.7) << (keys ? "key" : "value") << d;
  }
  double error = 0.0, size = 0.0;
  for (std::size_t j = 0; j < 64; ++j) {
    const auto read = f.row(j);
    for (std::size_t d = 0; d < 64; ++d) {
      const double x = static_cast<double>(f.plain[j * 64 + d]);
      error += (static_cast<double>(read[d]) - x) * (static_cast<double>(read[d]) - x);
      size += x * x;
    }
  }
  EXPECT_LT(std::sqrt(error / size), 0.2);
}

TEST(PackedRows, EntriesOfAStandingGroupCanBeWrittenAgain) {
  check_rewriting<Keys<q4>>(true);
  check_rewriting<Values<q4>>(false);
}

}  // namespace
}  // namespace zeromerge
