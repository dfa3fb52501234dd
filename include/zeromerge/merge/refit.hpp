// Value refit: after entries have left, the values of those that stay are fitted so that attention over them
// gives what attention over all gave. Reference queries Q~ are the prompt's own, turned to positions behind
// it; O their outputs over all entries, P their probabilities over the kept ones, with values V_S:
//   V' = V_S + (P'P + rho I)^-1 P'(O - P V_S)      rho = ridge * the mean of the diagonal of P'P
// Keys and positions stay. Works on what the storage gives back: keys that have been quantised are the keys
// the values are fitted to. (The value half of attention matching, arXiv 2602.16284, with a ridge towards
// V_S.)
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

#include "zeromerge/core/parallel.hpp"
#include "zeromerge/merge/reference_queries.hpp"
#include "zeromerge/merge/ridge.hpp"

namespace zeromerge {

struct RefitParams {
  std::size_t references = 0;  // tokens whose queries are asked; 0: no refit
  float ridge = 0.1f;
  std::size_t reach = 512;  // references are turned to the next so many positions
  bool round_keys = false;  // keys in 4 bits are rounded by what the same queries see (key_rounding.hpp)
};

template <class H>
class ValueRefit {
 public:
  ValueRefit(const RefitParams& params, const ReferenceQueries<H>& references)
      : params_(params), references_(references) {}

  // kept: a layer's heads; before: the same with all entries, empty where none has left. Fits the values of
  // those that some have left.
  void fit(std::span<const H> before, std::span<H> kept, const Executor& executor) const {
    if (references_.rows() == 0) return;
    std::vector<RowMatrix> outputs;
    for (const H& head : before)
      outputs.emplace_back(head.size() == 0 ? 0 : references_.geometry().head_dim, references_.rows());
    executor(before.size() * kShares, [&](std::size_t i) {
      RowMatrix& out = outputs[i / kShares];
      if (out.rows == 0) return;
      references_.attend(i / kShares, before[i / kShares],
                         [&](std::size_t r, const float* row) {
                           for (std::size_t d = 0; d < out.rows; ++d) out.row(d)[r] = row[d];
                         },
                         {i % kShares, kShares});
    });
    executor(before.size(), [&](std::size_t h) {
      if (outputs[h].rows != 0 && kept[h].size() != 0) fit(h, kept[h], outputs[h]);
    });
  }

 private:
  static constexpr std::size_t kShares = 4;

  // e: [head_dim][rows], what attention over all entries gave; is used up.
  void fit(std::size_t h, H& kept, RowMatrix& e) const {
    const std::size_t dim = e.rows;
    RowMatrix p(kept.size(), e.columns);
    attend_kept(h, kept, p, e);
    const RowMatrix x = ridge_regression(p, e, params_.ridge);
    if (x.rows == 0) return;
    std::vector<float> value(dim);
    for (std::size_t j = 0; j < kept.size(); ++j) {
      kept.read_value(j, value.data());
      for (std::size_t d = 0; d < dim; ++d) value[d] += x.row(d)[j];
      if (std::all_of(value.begin(), value.end(), [](float v) { return std::abs(v) < 60000.0f; }))
        kept.write_value(j, value.data());
    }
  }

  // p[entry][row] becomes the probability, and e[channel][row] loses what the kept values give.
  void attend_kept(std::size_t h, const H& kept, RowMatrix& p, RowMatrix& e) const {
    const std::size_t size = kernels::strip_rows(kept.size());
    std::vector<float> column(kernels::round_up(kept.size(), kernels::kKeyBlock));
    const std::vector<float> weight(size, 1.0f);
    references_.blocks(h, kept, size, true, {},
                       [&](auto& buffer, std::size_t first, std::size_t count,
                           const kernels::PrefillRows& rows, const auto& k, const auto& v) {
                         const kernels::PrefillScratch s = buffer.scratch();
                         kernels::attend_rows_with_columns(rows, weight.data(), kernels::ColumnStatistic::sum,
                                                           k, v, s, buffer.out(), column.data());
                         for (std::size_t r = 0; r < count; ++r) {
                           const float* exponential =
                               s.strip + r * s.strip_stride;  // and in s.sum what makes it a probability
                           for (std::size_t j = 0; j < kept.size(); ++j)
                             p.row(j)[first + r] = exponential[j] * s.sum[r];
                           for (std::size_t d = 0; d < references_.geometry().head_dim; ++d)
                             e.row(d)[first + r] -= buffer.out()[r * kept.row_size() + d];
                         }
                       });
  }

  RefitParams params_;
  const ReferenceQueries<H>& references_;
};

}  // namespace zeromerge
