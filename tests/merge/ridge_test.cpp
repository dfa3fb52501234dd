// The solution makes the gradient of |P X - E|^2 + rho |X|^2 vanish, in both forms.
#include "zeromerge/merge/ridge.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "support/isa.hpp"
#include "support/random.hpp"

namespace zeromerge {
namespace {

class Ridge : public test::EachIsa {};

void check(std::size_t unknowns, std::size_t equations, std::size_t right, float ridge) {
  SCOPED_TRACE(testing::Message() << unknowns << " unknowns, " << equations << " equations, ridge " << ridge);
  test::Random random(unknowns * 100 + equations);
  RowMatrix p(unknowns, equations), e(right, equations);
  for (float& x : p.x) x = static_cast<float>(random.uniform());
  e.x = test::normals(random, e.x.size());
  const RowMatrix x = ridge_regression(p, e, ridge);
  ASSERT_EQ(x.rows, right);
  ASSERT_EQ(x.columns, unknowns);
  double trace = 0.0;
  for (const float y : p.x) trace += static_cast<double>(y) * static_cast<double>(y);
  const double rho = static_cast<double>(ridge) * trace / static_cast<double>(unknowns);
  for (std::size_t r = 0; r < right; ++r) {
    std::vector<double> rest(equations), sizes(equations);
    for (std::size_t i = 0; i < equations; ++i) {
      rest[i] = -static_cast<double>(e.row(r)[i]);
      sizes[i] = std::abs(rest[i]);
      for (std::size_t j = 0; j < unknowns; ++j) {
        const double part = static_cast<double>(p.row(j)[i]) * static_cast<double>(x.row(r)[j]);
        rest[i] += part;
        sizes[i] += std::abs(part);
      }
    }
    for (std::size_t j = 0; j < unknowns; ++j) {
      double gradient = rho * static_cast<double>(x.row(r)[j]);
      double size = std::abs(gradient);
      for (std::size_t i = 0; i < equations; ++i) {
        gradient += static_cast<double>(p.row(j)[i]) * rest[i];
        size += static_cast<double>(p.row(j)[i]) * sizes[i];
      }
      ASSERT_NEAR(gradient, 0.0, 1e-5 * size) << "right side " << r << " unknown " << j;
    }
  }
}

TEST_P(Ridge, SolvesBothForms) {
  for (const float ridge : {0.1f, 0.01f}) {
    check(1, 1, 1, ridge);
    check(1, 40, 3, ridge);
    check(40, 1, 3, ridge);
    check(33, 100, 16, ridge);
    check(100, 33, 16, ridge);
    check(64, 64, 5, ridge);
  }
}

TEST_P(Ridge, GivesNothingWhereThereIsNothing) {
  RowMatrix p(3, 5), e(2, 5);
  EXPECT_EQ(ridge_regression(p, e, 0.1f).rows, 0u);
  p.x[3] = std::numeric_limits<float>::infinity();
  EXPECT_EQ(ridge_regression(p, e, 0.1f).rows, 0u);
  p.x[3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(ridge_regression(p, e, 0.1f).rows, 0u);
}

INSTANTIATE_TEST_SUITE_P(Levels, Ridge, testing::ValuesIn(test::available_isas()), test::isa_of);

}  // namespace
}  // namespace zeromerge
