// Keys rounded by what queries see, against the same in double in its other form, and against what it is for.
#include "zeromerge/merge/key_rounding.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include "support/random.hpp"
#include "zeromerge/storage/head.hpp"

namespace zeromerge {
namespace {

using test::Random;

constexpr std::size_t kRows = 32;  // of a group
using Matrix = std::vector<std::vector<double>>;

// Queries of which a few directions are common to all, and their moments.
struct Queries {
  std::vector<std::vector<float>> rows;
  RowMatrix moments;

  Queries(Random& random, std::size_t count, std::size_t dim, double common) : moments(dim, dim) {
    std::vector<std::vector<float>> directions;
    for (int i = 0; i < 3; ++i) directions.push_back(test::normals(random, dim, common));
    for (std::size_t r = 0; r < count; ++r) {
      rows.push_back(test::normals(random, dim));
      for (const auto& direction : directions) {
        const auto weight = static_cast<float>(1.0 + 0.3 * random.normal());
        for (std::size_t d = 0; d < dim; ++d) rows[r][d] += weight * direction[d];
      }
    }
    measure();
  }
  void measure() {
    for (std::size_t a = 0; a < moments.rows; ++a)
      for (std::size_t b = 0; b < moments.rows; ++b) {
        double sum = 0.0;
        for (const auto& q : rows) sum += static_cast<double>(q[a]) * static_cast<double>(q[b]);
        moments.row(a)[b] = static_cast<float>(sum / static_cast<double>(rows.size()));
      }
  }
  // The mean square of what rounding does to the logits.
  double harm(const std::vector<float>& before, const std::vector<float>& after) const {
    const std::size_t dim = rows[0].size();
    double sum = 0.0;
    for (const auto& q : rows)
      for (std::size_t j = 0; j < kRows; ++j) {
        double logit = 0.0;
        for (std::size_t d = 0; d < dim; ++d)
          logit += static_cast<double>(q[d]) *
                   (static_cast<double>(after[j * dim + d]) - static_cast<double>(before[j * dim + d]));
        sum += logit * logit;
      }
    return sum / static_cast<double>(rows.size() * kRows);
  }
};

std::vector<float> rounded(const RowMatrix& moments, std::vector<float> keys) {
  KeyRounding(moments).round_group(keys.data());
  return keys;
}

// The inverse of a symmetric positive definite matrix, by elimination.
Matrix inverse(Matrix a) {
  const std::size_t n = a.size();
  Matrix b(n, std::vector<double>(n, 0.0));
  for (std::size_t i = 0; i < n; ++i) b[i][i] = 1.0;
  for (std::size_t i = 0; i < n; ++i) {
    const double pivot = a[i][i];
    for (std::size_t j = 0; j < n; ++j) a[i][j] /= pivot, b[i][j] /= pivot;
    for (std::size_t r = 0; r < n; ++r) {
      if (r == i) continue;
      const double factor = a[r][i];
      for (std::size_t j = 0; j < n; ++j) a[r][j] -= factor * a[i][j], b[r][j] -= factor * b[i][j];
    }
  }
  return b;
}

// Optimal brain quantisation as it is told: round the channel that weighs most, move all others that are left
// by what the inverse of the moments among them says, go on.
std::vector<double> by_elimination(const RowMatrix& moments, const std::vector<float>& keys,
                                   std::size_t entry) {
  const std::size_t n = moments.rows;
  double trace = 0.0;
  for (std::size_t d = 0; d < n; ++d) trace += static_cast<double>(moments.row(d)[d]);
  std::vector<std::size_t> left(n);
  std::iota(left.begin(), left.end(), std::size_t{0});
  std::stable_sort(left.begin(), left.end(),
                   [&](std::size_t a, std::size_t b) { return moments.row(a)[a] < moments.row(b)[b]; });
  std::vector<double> x(n);
  for (std::size_t d = 0; d < n; ++d) x[d] = static_cast<double>(keys[entry * n + d]);
  while (!left.empty()) {
    Matrix among;
    for (const std::size_t a : left) {
      among.emplace_back();
      for (const std::size_t b : left)
        among.back().push_back(static_cast<double>(moments.row(a)[b]) +
                               (a == b ? 0.01 * trace / static_cast<double>(n) : 0.0));
    }
    const Matrix h = inverse(among);
    const std::size_t at = left.size() - 1, d = left.back();
    std::size_t least = 0, largest = 0;
    for (std::size_t j = 1; j < kRows; ++j) {
      if (keys[j * n + d] < keys[least * n + d]) least = j;
      if (keys[j * n + d] > keys[largest * n + d]) largest = j;
    }
    const double low = static_cast<double>(to_f32(from_f32<f16>(keys[least * n + d])));
    const double step =
        static_cast<double>(to_f32(from_f32<f16>((keys[largest * n + d] - static_cast<float>(low)) / 15.0f)));
    double code = std::clamp(std::nearbyint((x[d] - low) / step), 0.0, 15.0);
    if (entry == largest) code = 15.0;
    if (entry == least) code = 0.0;
    const double moved = (x[d] - (low + step * code)) / h[at][at];
    x[d] = low + step * code;
    for (std::size_t i = 0; i < at; ++i) x[left[i]] -= moved * h[i][at];
    left.pop_back();
  }
  return x;
}

TEST(KeyRounding, IsOptimalBrainQuantisation) {
  Random random(1);
  for (const std::size_t dim : {5, 16, 24}) {
    const Queries q(random, 60, dim, 1.0);
    const auto keys = test::normals(random, kRows * dim);
    const auto got = rounded(q.moments, keys);
    std::size_t others = 0;  // a number on the edge of two codes may fall to the other side
    for (std::size_t j = 0; j < kRows; ++j) {
      const auto expected = by_elimination(q.moments, keys, j);
      bool same = true;
      for (std::size_t d = 0; d < dim; ++d)
        same = same && std::abs(static_cast<double>(got[j * dim + d]) - expected[d]) < 1e-3;
      others += same ? 0 : 1;
    }
    EXPECT_LE(others, 1u) << dim << " channels";
  }
}

TEST(KeyRounding, MovesLogitsLessThanNearestCodes) {
  Random random(2);
  for (const std::size_t dim : {64, 80, 96, 128, 256}) {
    const Queries q(random, 300, dim, 2.0);
    const auto keys = test::normals(random, kRows * dim);
    const double nearest = q.harm(keys, rounded(RowMatrix(dim, dim), keys));
    EXPECT_LT(q.harm(keys, rounded(q.moments, keys)), 0.4 * nearest) << dim << " channels";
    const Queries plain(random, 600, dim, 0.0);  // that weigh all directions alike: nothing to gain
    EXPECT_LT(plain.harm(keys, rounded(plain.moments, keys)),
              1.1 * plain.harm(keys, rounded(RowMatrix(dim, dim), keys)))
        << dim << " channels";
  }
}

// Fewer reference rows than channels: queries of the same kind that were not asked are harmed less than with
// the damping that many rows need, and less than by nearest codes; those asked hardly at all.
TEST(KeyRounding, OfFewReferencesSparesOtherQueriesOfTheirKind) {
  for (const std::size_t dim : {64, 128})
    for (const std::size_t count : {16, 48, 96}) {
      Random random(5 + count);
      Queries asked(random, 400, dim, 2.0);
      Queries others = asked;
      others.rows.erase(others.rows.begin(), others.rows.begin() + static_cast<std::ptrdiff_t>(count));
      asked.rows.resize(count);
      asked.measure();
      const auto keys = test::normals(random, kRows * dim);
      const auto harms = [&](float damping) {
        auto moved = keys;
        KeyRounding(asked.moments, damping).round_group(moved.data());
        return std::pair(asked.harm(keys, moved), others.harm(keys, moved));
      };
      const auto [seen, unseen] = harms(key_damping(count, dim));
      EXPECT_LT(unseen, 0.95 * harms(0.01f).second) << count << " rows of " << dim;
      const auto nearest = rounded(RowMatrix(dim, dim), keys);
      EXPECT_LT(unseen, 0.4 * others.harm(keys, nearest)) << count << " rows of " << dim;
      EXPECT_LT(seen, 0.25 * asked.harm(keys, nearest)) << count << " rows of " << dim;
    }
  EXPECT_EQ(key_damping(6 * 64, 64), 0.01f) << "what many rows always had";
  EXPECT_EQ(key_damping(0, 64), 0.5f);
}

// A step is about 0.28.
TEST(KeyRounding, OfFewReferencesStaysNearTheKey) {
  for (const std::size_t count : {1, 3, 16, 48, 128, 300}) {
    constexpr std::size_t kDim = 128;
    Random random(6 + count);
    const Queries q(random, count, kDim, 1.0);
    const auto keys = test::normals(random, kRows * kDim);
    auto moved = keys;
    KeyRounding(q.moments, key_damping(count, kDim)).round_group(moved.data());
    for (std::size_t i = 0; i < keys.size(); ++i) ASSERT_NEAR(moved[i], keys[i], 0.6) << count << " rows";
  }
}

// The storage lays its grid anew when it packs a group: what was rounded stays where it is.
TEST(KeyRounding, IsWhatTheStorageKeeps) {
  Random random(3);
  for (const std::size_t dim : {64, 80, 128}) {
    ByteLedger ledger;
    const Queries q(random, 200, dim, 2.0);
    for (const bool weighed : {false, true}) {
      Head<q4> head(dim, {}, &ledger);
      head.fit(75);
      for (std::uint32_t j = 0; j < 75; ++j)
        head.append(test::normals(random, dim).data(), test::normals(random, dim).data(), j);
      Head<q4> plain(head);
      KeyRounding(weighed ? q.moments : RowMatrix(dim, dim)).round(head, 5);
      const auto first = [&](const Head<q4>& from, std::size_t j) {
        std::vector<float> row(dim);
        from.read_key(j, row.data());
        return row;
      };
      const Head<q4> unpacked(head);
      head.settle(75, {5, 5});
      plain.settle(75, {5, 5});
      for (std::size_t j = 0; j < 75; ++j) {
        const auto is = first(head, j), was = first(unpacked, j), nearest = first(plain, j);
        for (std::size_t d = 0; d < dim; ++d) {
          ASSERT_NEAR(is[d], was[d], 0.02) << "entry " << j << " channel " << d;  // a step is about 0.28
          if (!weighed) {
            ASSERT_NEAR(is[d], nearest[d], 0.02) << "entry " << j << " channel " << d;
          }
        }
      }
    }
  }
}

TEST(KeyRounding, TakesConstantChannelsAndNoMoments) {
  std::vector<float> keys(kRows * 64, 0.0f);
  for (std::size_t j = 0; j < kRows; ++j) keys[j * 64 + 3] = 2.5f;
  EXPECT_EQ(rounded(RowMatrix(64, 64), keys), keys);
  Random random(4);
  const Queries q(random, 50, 64, 1.0);
  EXPECT_EQ(rounded(q.moments, keys), keys);
}

}  // namespace
}  // namespace zeromerge
