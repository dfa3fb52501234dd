// kernels/cpu/elementwise.inl at every level.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "support/isa.hpp"
#include "support/kernel_rows.hpp"
#include "support/random.hpp"
#include "support/rounding.hpp"

namespace zeromerge {
namespace {

using test::Random;

class ElementwiseKernels : public test::EachIsa {};

// All finite values of a 16-bit type; what is not finite never passes the border checks.
template <class T>
std::vector<T> finite_patterns() {
  std::vector<T> all;
  for (unsigned bits = 0; bits < 0x10000; ++bits)
    if (const T x{static_cast<std::uint16_t>(bits)}; std::isfinite(to_f32(x))) all.push_back(x);
  return all;
}

template <class T>
void check_conversions() {
  const std::vector<T> all = finite_patterns<T>();
  std::vector<float> wide(all.size());
  kernels::widen(all.data(), all.size(), 1.0f, wide.data());
  for (std::size_t i = 0; i < all.size(); ++i)
    ASSERT_EQ(std::bit_cast<std::uint32_t>(wide[i]), std::bit_cast<std::uint32_t>(to_f32(all[i])))
        << all[i].bits;
  std::vector<T> back(all.size());
  kernels::narrow(wide.data(), wide.size(), back.data());
  for (std::size_t i = 0; i < all.size(); ++i) ASSERT_EQ(back[i].bits, all[i].bits);

  // Between neighbours: the middle, a bit less, a bit more; the portable conversion is tested against double
  // elsewhere.
  std::vector<float> between;
  for (std::size_t i = 0; i + 1 < all.size(); ++i) {
    const float middle = 0.5f * wide[i] + 0.5f * wide[i + 1];
    between.insert(between.end(),
                   {middle, std::nextafter(middle, 0.0f), std::nextafter(middle, 2.0f * middle)});
  }
  std::vector<T> narrow(between.size());
  kernels::narrow(between.data(), between.size(), narrow.data());
  for (std::size_t i = 0; i < between.size(); ++i)
    ASSERT_EQ(narrow[i].bits, from_f32<T>(between[i]).bits) << between[i];
}

TEST_P(ElementwiseKernels, ConversionsEqualThePortableOnesBitForBit) {
  check_conversions<f16>();
  check_conversions<bf16>();
}

template <class T>
void check_lengths() {
  for (std::size_t n = 0; n < 70; ++n) {
    Random random(n);
    const std::vector<T> from = test::stored<T>(test::normals(random, n));
    std::vector<float> to(n + 1, 7.0f);
    kernels::widen(from.data(), n, 0.5f, to.data());
    for (std::size_t i = 0; i < n; ++i) ASSERT_EQ(to[i], to_f32(from[i]) * 0.5f);
    ASSERT_EQ(to[n], 7.0f) << "written beyond";
    std::vector<T> back(n + 1, from_f32<T>(7.0f));
    kernels::narrow(to.data(), n, back.data());
    for (std::size_t i = 0; i < n; ++i) ASSERT_EQ(to_f32(back[i]), to_f32(from_f32<T>(to[i])));
    ASSERT_EQ(to_f32(back[n]), 7.0f) << "written beyond";
  }
}

TEST_P(ElementwiseKernels, RowsOfAnyLengthAreConvertedWholeAndNoFurther) {
  check_lengths<float>();
  check_lengths<f16>();
  check_lengths<bf16>();
}

TEST_P(ElementwiseKernels, DotIsTheSumOfProducts) {
  for (const std::size_t n : {0u, 1u, 5u, 15u, 16u, 17u, 64u, 80u, 255u, 1024u}) {
    Random random(n);
    const auto x = test::normals(random, n);
    const auto y = test::normals(random, n);
    double expected = 0.0;
    double size = 0.0;
    for (std::size_t i = 0; i < n; ++i) {
      const double product = static_cast<double>(x[i]) * static_cast<double>(y[i]);
      expected += product;
      size += std::abs(product);
    }
    EXPECT_NEAR(kernels::dot(x.data(), y.data(), n), expected, 5e-7 * size) << n;
  }
}

TEST_P(ElementwiseKernels, AddScaledStartsOrContinuesASum) {
  Random random(3);
  const auto part = test::normals(random, 64);
  const auto before = test::normals(random, 64);
  std::vector<float> out(64, std::nanf(""));
  kernels::add_scaled(part.data(), 0.25f, 64, out.data(), true);
  for (std::size_t d = 0; d < 64; ++d) ASSERT_EQ(out[d], 0.25f * part[d]);
  out = before;
  kernels::add_scaled(part.data(), 0.3f, 64, out.data(), false);
  for (std::size_t d = 0; d < 64; ++d)
    ASSERT_NEAR(out[d], static_cast<double>(before[d]) + 0.3 * static_cast<double>(part[d]), 1e-6);
}

TEST_P(ElementwiseKernels, DecayAndAddSumsTheGroupIntoTheScore) {
  for (const std::size_t group : {1u, 3u, 8u})
    for (const std::size_t n : {1u, 16u, 17u, 64u, 255u}) {
      Random random(n * group);
      const std::size_t stride = test::padded(n) + 16;
      auto score = test::normals(random, test::padded(n));
      const auto p = test::normals(random, group * stride);
      const auto factor = test::normals(random, group);
      const auto before = score;
      kernels::decay_and_add(score.data(), n, 0.98f, p.data(), stride, factor.data(), group);
      for (std::size_t j = 0; j < n; ++j) {
        double expected = static_cast<double>(before[j]) * static_cast<double>(0.98f);
        for (std::size_t g = 0; g < group; ++g)
          expected += static_cast<double>(p[g * stride + j]) * static_cast<double>(factor[g]);
        ASSERT_NEAR(score[j], expected, 3e-6) << "group " << group << " entry " << j;
      }
    }
}

TEST_P(ElementwiseKernels, LeastIsTheFirstOfTheLeast) {
  for (std::size_t n = 1; n < 70; ++n)
    for (int round = 0; round < 20; ++round) {
      Random random(n * 100 + static_cast<std::size_t>(round));
      std::vector<float> x(n);
      for (float& y : x) y = static_cast<float>(random.between(0, round == 0 ? 0 : 9)) - 4.0f;
      const auto expected = std::min_element(x.begin(), x.end()) - x.begin();
      ASSERT_EQ(kernels::least(x.data(), n), static_cast<std::size_t>(expected)) << n;
    }
  const std::vector<float> none(20, std::numeric_limits<float>::infinity());
  EXPECT_EQ(kernels::least(none.data(), none.size()), 0u);
}

TEST_P(ElementwiseKernels, LargestMagnitudeSeesEveryElementAndNaN) {
  for (const std::size_t n : {0u, 1u, 15u, 16u, 31u, 32u, 33u, 100u})
    for (std::size_t at = 0; at < n; ++at) {
      std::vector<float> x(n, -0.5f);
      const auto largest = [&] {
        return std::bit_cast<float>(
            kernels::largest_magnitude(reinterpret_cast<const std::uint32_t*>(x.data()), n));
      };
      ASSERT_EQ(largest(), 0.5f);
      x[at] = -7.0f;
      ASSERT_EQ(largest(), 7.0f) << at << " of " << n;
      x[at] = -std::numeric_limits<float>::quiet_NaN();
      ASSERT_TRUE(std::isnan(largest()));
      std::vector<std::uint16_t> half(n, 0x8001);
      half[at] = 0xfc00;
      ASSERT_EQ(kernels::largest_magnitude(half.data(), n), 0x7c00);
    }
  EXPECT_EQ(kernels::largest_magnitude(static_cast<const std::uint32_t*>(nullptr), 0), 0u);
}

TEST_P(ElementwiseKernels, BytesAreTheNearestMultiplesOfTheScale) {
  for (const std::size_t n : {1u, 15u, 16u, 17u, 64u, 80u}) {
    Random random(n);
    const auto x = test::normals(random, n, 3.0);
    std::vector<std::uint8_t> q(n + 1, 77);
    const double scale = static_cast<double>(kernels::encode_q8(x.data(), n, q.data()));
    double largest = 0.0;
    for (const float y : x) largest = std::max(largest, std::abs(static_cast<double>(y)));
    ASSERT_NEAR(scale, largest / 127.0, 1e-7 * scale);
    std::vector<float> back(n + 1, -1.0f);
    kernels::decode_q8(q.data(), n, static_cast<float>(scale), back.data());
    for (std::size_t i = 0; i < n; ++i) {
      ASSERT_GE(q[i], 1);
      ASSERT_NEAR(back[i], x[i], 0.5001 * scale) << i;
      ASSERT_NEAR(back[i], scale * (q[i] - 128.0), 1e-6 * largest);
    }
    ASSERT_EQ(q[n], 77);
    ASSERT_EQ(back[n], -1.0f);
  }
  std::vector<float> zeros(17, 0.0f), tiny(17, 1e-40f);
  std::vector<std::uint8_t> q(17);
  EXPECT_EQ(kernels::encode_q8(zeros.data(), 17, q.data()), 0.0f);
  EXPECT_EQ(q, std::vector<std::uint8_t>(17, kernels::kZeroQ8));
  EXPECT_EQ(kernels::encode_q8(tiny.data(), 17, q.data()), 0.0f);
}

INSTANTIATE_TEST_SUITE_P(Levels, ElementwiseKernels, testing::ValuesIn(test::available_isas()), test::isa_of);

}  // namespace
}  // namespace zeromerge
