// Rotations against complex numbers in double, turns by differences, the variants' frequencies, and refusals.
#include "zeromerge/core/rope.hpp"

#include <gtest/gtest.h>

#include <complex>
#include <vector>

#include "support/random.hpp"

namespace zeromerge {
namespace {

using test::Random;

std::vector<double> rotated(const std::vector<float>& row, const RopeParams& p, double position,
                            const std::vector<double>& frequency) {
  std::vector<double> out(row.begin(), row.end());
  for (std::size_t i = 0; i < p.dims / 2; ++i) {
    const std::size_t a = p.first + (p.pairs == RopePairs::halves ? i : 2 * i);
    const std::size_t b = p.first + (p.pairs == RopePairs::halves ? p.dims / 2 + i : 2 * i + 1);
    const std::complex<double> z =
        std::complex<double>(static_cast<double>(row[a]), static_cast<double>(row[b])) *
        std::polar(1.0, position * frequency[i]);
    out[a] = z.real();
    out[b] = z.imag();
  }
  return out;
}

struct Case {
  RopeParams params;
  std::size_t head_dim;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const RopePairs pairs : {RopePairs::halves, RopePairs::neighbours})
    for (const auto& [dims, first, head_dim] :
         {std::array<std::size_t, 3>{64, 0, 64}, {32, 0, 80}, {16, 8, 32}, {2, 0, 2}})
      all.push_back({{.dims = dims, .first = first, .pairs = pairs, .base = 500000.0}, head_dim});
  return all;
}

TEST(Rope, RotatesPairsAsComplexNumbers) {
  Random random(1);
  for (const auto& [params, head_dim] : cases()) {
    const Rope rope(params, head_dim);
    std::vector<double> frequency;
    for (std::size_t i = 0; i < params.dims / 2; ++i)
      frequency.push_back(
          std::pow(params.base, -2.0 * static_cast<double>(i) / static_cast<double>(params.dims)));
    for (const double position : {0.0, 1.0, 17.0, 4095.0, 100000.0}) {
      const std::vector<float> plain = test::normals(random, head_dim);
      std::vector<float> row = plain;
      rope.rotate(row.data(), position);
      const std::vector<double> expected = rotated(plain, params, position, frequency);
      for (std::size_t d = 0; d < head_dim; ++d) ASSERT_NEAR(row[d], expected[d], 1e-6) << "channel " << d;
      rope.unrotate(row.data(), position);
      for (std::size_t d = 0; d < head_dim; ++d) ASSERT_NEAR(row[d], plain[d], 1e-6) << "channel " << d;
    }
  }
}

TEST(Rope, ATurnByADifferenceIsTheRotationToTheOtherPosition) {
  Random random(2);
  const Rope rope({.dims = 64, .attention = 1.25}, 64);
  const std::vector<float> plain = test::normals(random, 64);
  for (const double to : {5.0, 2048.0, 3.0}) {
    std::vector<float> turned = plain;
    std::vector<float> expected = plain;
    rope.rotate(turned.data(), 700.0);
    rope.apply(rope.turn(to - 700.0), turned.data());
    rope.rotate(expected.data(), to);
    for (std::size_t d = 0; d < 64; ++d) ASSERT_NEAR(turned[d], expected[d], 3e-6) << "channel " << d;
  }
}

TEST(Rope, LogitsDependOnDistanceAlone) {
  Random random(3);
  const Rope rope({.dims = 48, .pairs = RopePairs::neighbours}, 64);
  const std::vector<float> q = test::normals(random, 64);
  const std::vector<float> k = test::normals(random, 64);
  const auto logit = [&](double at_q, double at_k) {
    std::vector<float> a = q, b = k;
    rope.rotate(a.data(), at_q);
    rope.rotate(b.data(), at_k);
    double sum = 0.0;
    for (std::size_t d = 0; d < 64; ++d) sum += static_cast<double>(a[d]) * static_cast<double>(b[d]);
    return sum;
  };
  EXPECT_NEAR(logit(100.0, 40.0), logit(5060.0, 5000.0), 2e-5);
}

TEST(Rope, ScalesAndFactorsDivideFrequencies) {
  const Rope plain({.dims = 8}, 8);
  const Rope linear({.dims = 8, .scale = 0.25}, 8);
  const Rope factors({.dims = 8, .factors = {1.0f, 2.0f, 4.0f, 8.0f}}, 8);
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_DOUBLE_EQ(linear.frequencies()[i], 0.25 * plain.frequencies()[i]);
    EXPECT_DOUBLE_EQ(factors.frequencies()[i], plain.frequencies()[i] / std::exp2(static_cast<double>(i)));
  }
}

// Qwen2.5's published settings: factor 4 over 32768 tokens. Pairs that turn more than 32 times over the
// original context keep their frequency, those that turn less than once are slowed down fourfold.
TEST(Rope, YarnInterpolatesSlowPairsOnly) {
  const RopeParams params{
      .dims = 128, .base = 1e6, .scale = 0.25, .extrapolation = 1.0, .original_context = 32768};
  const Rope yarn(params, 128);
  const Rope plain({.dims = 128, .base = 1e6}, 128);
  double before = 1.0;
  for (std::size_t i = 0; i < 64; ++i) {
    const double turns = 32768.0 * plain.frequencies()[i] / 6.283185307179586;
    const double ratio = yarn.frequencies()[i] / plain.frequencies()[i];
    if (turns > 40.0) {
      ASSERT_DOUBLE_EQ(ratio, 1.0);
    }
    if (turns < 0.8) {
      ASSERT_DOUBLE_EQ(ratio, 0.25);
    }
    ASSERT_LE(ratio, before + 1e-12) << "pair " << i;
    before = ratio;
  }
  EXPECT_NEAR(yarn.length(), 1.0 + 0.1 * std::log(4.0), 1e-12);
}

TEST(Rope, RefusesWhatDoesNotFit) {
  EXPECT_THROW(Rope({.dims = 0}, 64), Error);
  EXPECT_THROW(Rope({.dims = 7}, 64), Error);
  EXPECT_THROW(Rope({.dims = 66}, 64), Error);
  EXPECT_THROW(Rope({.dims = 64, .first = 2}, 64), Error);
  EXPECT_THROW(Rope({.dims = 64, .base = 0.0}, 64), Error);
  EXPECT_THROW(Rope({.dims = 64, .scale = std::nan("")}, 64), Error);
  EXPECT_THROW(Rope({.dims = 8, .factors = {1.0f}}, 8), Error);
  EXPECT_THROW(Rope({.dims = 4, .factors = {1.0f, 0.0f}}, 8), Error);
  EXPECT_THROW(Rope({.dims = 8, .extrapolation = 1.0}, 8), Error);
}

}  // namespace
}  // namespace zeromerge
