// Ridge regression for few unknowns and many right sides: the X that minimises |P X - E|^2 + rho |X|^2.
// Everything is dot products of rows that lie in one piece, many at once where there are many.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "zeromerge/kernels/aligned.hpp"
#include "zeromerge/kernels/kernels.hpp"

namespace zeromerge {

// A matrix of rows, each in one piece.
struct RowMatrix {
  std::size_t rows = 0;
  std::size_t columns = 0;
  std::vector<float> x{};

  RowMatrix(std::size_t r, std::size_t c) : rows(r), columns(c), x(r * c) {}
  float* row(std::size_t r) noexcept { return x.data() + r * columns; }
  const float* row(std::size_t r) const noexcept { return x.data() + r * columns; }
};

namespace detail {

// In place: the lower triangle of a symmetric positive definite matrix becomes L with L L' = A. False: it is
// not positive definite in f32, and its content is of no use.
inline bool cholesky(RowMatrix& a) noexcept {
  for (std::size_t i = 0; i < a.rows; ++i) {
    float* row = a.row(i);
    for (std::size_t j = 0; j < i; ++j) row[j] = (row[j] - kernels::dot(row, a.row(j), j)) / a.row(j)[j];
    const float rest = row[i] - kernels::dot(row, row, i);
    if (!(rest > 0.0f)) return false;
    row[i] = std::sqrt(rest);
  }
  return true;
}

// In place: each row b of `right` becomes the solution of L L' x = b. upper: L'.
inline void solve_rows(const RowMatrix& lower, const RowMatrix& upper, RowMatrix& right) noexcept {
  const std::size_t n = lower.rows;
  for (std::size_t r = 0; r < right.rows; ++r) {
    float* x = right.row(r);
    for (std::size_t i = 0; i < n; ++i) x[i] = (x[i] - kernels::dot(lower.row(i), x, i)) / lower.row(i)[i];
    for (std::size_t i = n; i-- > 0;)
      x[i] = (x[i] - kernels::dot(upper.row(i) + i + 1, x + i + 1, n - i - 1)) / upper.row(i)[i];
  }
}

inline RowMatrix transposed(const RowMatrix& a) {
  constexpr std::size_t kBlock = 16;  // rows of t, each of which has a cache line in use
  RowMatrix t(a.columns, a.rows);
  for (std::size_t first = 0; first < a.columns; first += kBlock)
    for (std::size_t i = 0; i < a.rows; ++i)
      for (std::size_t j = first; j < std::min(first + kBlock, a.columns); ++j) t.row(j)[i] = a.row(i)[j];
  return t;
}

// A block of rows of b as panels of 16 columns for kernels::product; what is not there is 0.
inline void rows_as_panels(const RowMatrix& b, std::size_t first, std::size_t count, float* panels) {
  constexpr std::size_t kTile = kernels::kTile;
  std::fill_n(panels, kernels::round_up(count, kTile) * b.columns, 0.0f);
  for (std::size_t j = 0; j < count; ++j) {
    const float* row = b.row(first + j);
    float* panel = panels + j / kTile * kTile * b.columns + j % kTile;
    for (std::size_t k = 0; k < b.columns; ++k) panel[k * kTile] = row[k];
  }
}

// The dot products of the rows of a with those of b: [a.rows][b.rows]. Of a symmetric result (`lower`) what
// stands above the diagonal is not to be used.
inline RowMatrix products(const RowMatrix& a, const RowMatrix& b, bool lower = false) {
  constexpr std::size_t kWidth = 2 * kernels::kTile;
  RowMatrix c(a.rows, b.rows);
  kernels::AlignedFloats panels(kWidth * b.columns), block(a.rows * kWidth);
  for (std::size_t first = 0; first < b.rows; first += kWidth) {
    const std::size_t count = std::min(kWidth, b.rows - first);
    const std::size_t from = lower ? first : 0;
    rows_as_panels(b, first, count, panels.data());
    kernels::product(a.row(from), a.columns, panels.data(), kernels::kTile * b.columns, block.data(), kWidth,
                     a.rows - from, kernels::round_up(count, kernels::kTile), a.columns, false);
    for (std::size_t i = from; i < a.rows; ++i)
      std::copy_n(block.data() + (i - from) * kWidth, count, c.row(i) + first);
  }
  return c;
}

// The lower triangle of a a' + rho I.
inline RowMatrix gram(const RowMatrix& a, float rho) {
  RowMatrix c = products(a, a, true);
  for (std::size_t i = 0; i < a.rows; ++i) c.row(i)[i] += rho;
  return c;
}

}  // namespace detail

// P' is given as [unknowns][equations], E' as [right sides][equations]. rho = ridge * the mean of the
// diagonal of P'P. Returns X' [right sides][unknowns]; empty (0 rows) if there is nothing to be had: P is 0
// or not finite. Whichever of the two forms has the smaller system is solved:
//   X = (P'P + rho I)^-1 P'E = P' (PP' + rho I)^-1 E
inline RowMatrix ridge_regression(const RowMatrix& p, const RowMatrix& e, float ridge) {
  using namespace detail;
  double trace = 0.0;
  for (std::size_t i = 0; i < p.rows; ++i)
    trace += static_cast<double>(kernels::dot(p.row(i), p.row(i), p.columns));
  const auto rho = static_cast<float>(static_cast<double>(ridge) * trace / static_cast<double>(p.rows));
  if (!(rho > 0.0f) || !(rho < 1e30f)) return RowMatrix(0, 0);
  const bool primal = p.rows <= p.columns;
  const RowMatrix equations = primal ? RowMatrix(0, 0) : transposed(p);
  RowMatrix lower = gram(primal ? p : equations, rho);
  if (!cholesky(lower)) return RowMatrix(0, 0);
  const RowMatrix upper = transposed(lower);
  RowMatrix x = primal ? products(e, p) : e;
  solve_rows(lower, upper, x);
  return primal ? x : products(x, p);
}

}  // namespace zeromerge
