// kernels/cpu/elementwise.inl at every level.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
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

INSTANTIATE_TEST_SUITE_P(Levels, ElementwiseKernels, testing::ValuesIn(test::available_isas()), test::isa_of);

}  // namespace
}  // namespace zeromerge
