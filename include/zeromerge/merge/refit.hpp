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
#include <vector>

#include "zeromerge/core/geometry.hpp"
#include "zeromerge/core/rope.hpp"
#include "zeromerge/kernels/prefill_buffer.hpp"
#include "zeromerge/merge/ridge.hpp"
#include "zeromerge/storage/query_rows.hpp"

namespace zeromerge {

struct RefitParams {
  std::size_t references = 0;  // tokens whose queries are asked; 0: no refit
  float ridge = 0.1f;
  std::size_t reach = 512;  // references are turned to the next so many positions
};

template <class H>
class ValueRefit {
 public:
  // `tokens` of the sequence seen; `queries`: of its newest. sinks: [query_heads] or null.
  ValueRefit(const RefitParams& params, const Geometry& geometry, const Rope& rope, const QueryRows& queries,
             std::size_t tokens, const float* sinks)
      : params_(params), g_(geometry), rope_(rope), queries_(queries), tokens_(tokens), sinks_(sinks) {
    choose();
  }

  // Fits the values of `kept`, which holds some of the entries of `all`, both of kv head h.
  void fit(std::size_t h, const H& all, H& kept) const {
    if (chosen_.empty() || kept.size() == 0) return;
    const std::size_t rows = chosen_.size() * g_.group();
    const std::size_t dim = g_.head_dim;
    RowMatrix p(kept.size(), rows), e(dim, rows);
    attend(h, all, [&](std::size_t r, const float* out) {
      for (std::size_t d = 0; d < dim; ++d) e.row(d)[r] = out[d];
    });
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

 private:
  // Half of them the newest tokens, half spread over the others; each to a position of its own behind the
  // prompt, the same in every run.
  void choose() {
    const std::size_t m = queries_.tokens();
    const std::size_t n = std::min(params_.references, m);
    const std::size_t newest = n == m ? m : n / 2;
    for (std::size_t i = 0; i < n - newest; ++i) chosen_.push_back(i * (m - newest) / (n - newest));
    for (std::size_t t = m - newest; t < m; ++t) chosen_.push_back(t);
    for (const std::size_t t : chosen_) {
      const std::size_t to = tokens_ + mixed(t) % std::max<std::size_t>(params_.reach, 1);
      turns_.push_back(rope_.turn(static_cast<double>(to) - static_cast<double>(tokens_ - m + t)));
    }
  }

  static std::size_t mixed(std::size_t x) noexcept {  // the finaliser of SplitMix64
    std::uint64_t z = static_cast<std::uint64_t>(x) + 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return static_cast<std::size_t>(z ^ (z >> 31));
  }

  // Fills the buffer with the reference rows [first, first + count) of head h, which see all `entries`.
  void stack(std::size_t h, std::size_t first, std::size_t count, std::size_t entries,
             kernels::PrefillBuffer& buffer) const {
    const std::size_t group = g_.group();
    for (std::size_t r = 0; r < count; ++r) {
      const std::size_t reference = (first + r) / group;
      const std::size_t query_head = h * group + (first + r) % group;
      queries_.read(chosen_[reference], query_head, kernels::kLog2E, buffer.query(r));
      rope_.apply(turns_[reference], buffer.query(r));
      buffer.limit()[r] = entries;
      buffer.sink()[r] = sinks_ != nullptr ? sinks_[query_head] * kernels::kLog2E : 0.0f;
    }
  }

  // Calls take(row, output) for every reference row over the entries of `head`.
  template <class Take>
  void attend(std::size_t h, const H& head, const Take& take) const {
    blocks(h, head, kernels::kRowBlock, false,
           [&](auto& buffer, std::size_t first, std::size_t count, const kernels::PrefillRows& rows,
               const auto& k, const auto& v) {
             kernels::attend_rows(rows, k, v, buffer.scratch(), buffer.out());
             for (std::size_t r = 0; r < count; ++r) take(first + r, buffer.out() + r * head.row_size());
           });
  }

  // p[entry][row] becomes the probability, and e[channel][row] loses what the kept values give.
  void attend_kept(std::size_t h, const H& kept, RowMatrix& p, RowMatrix& e) const {
    const std::size_t size = kernels::strip_rows(kept.size());
    std::vector<float> column(kernels::round_up(kept.size(), kernels::kKeyBlock));
    const std::vector<float> weight(size, 1.0f);
    blocks(h, kept, size, true,
           [&](auto& buffer, std::size_t first, std::size_t count, const kernels::PrefillRows& rows,
               const auto& k, const auto& v) {
             const kernels::PrefillScratch s = buffer.scratch();
             kernels::attend_rows_with_columns(rows, weight.data(), kernels::ColumnStatistic::sum, k, v, s,
                                               buffer.out(), column.data());
             for (std::size_t r = 0; r < count; ++r) {
               const float* exponential =
                   s.strip + r * s.strip_stride;  // and in s.sum what makes it a probability
               for (std::size_t j = 0; j < kept.size(); ++j) p.row(j)[first + r] = exponential[j] * s.sum[r];
               for (std::size_t d = 0; d < g_.head_dim; ++d)
                 e.row(d)[first + r] -= buffer.out()[r * kept.row_size() + d];
             }
           });
  }

  // Calls work(buffer, first, count, rows, keys, values) for blocks of reference rows.
  template <class Work>
  void blocks(std::size_t h, const H& head, std::size_t size, bool strips, const Work& work) const {
    const std::size_t rows = chosen_.size() * g_.group();
    kernels::PrefillBuffer buffer(size, head.row_size(), head.size(), strips);
    const float* bias = head.fields().mass ? head.bias() : nullptr;
    head.keys().visit([&](const auto& keys) {
      head.values().visit([&](const auto& values) {
        const kernels::WideRows k = kernels::wide(keys), v = kernels::wide(values);
        for (std::size_t first = 0; first < rows; first += size) {
          const std::size_t count = std::min(size, rows - first);
          stack(h, first, count, head.size(), buffer);
          work(buffer, first, count, buffer.rows(count, bias, sinks_ != nullptr, g_.logit_softcap), k, v);
        }
      });
    });
  }

  RefitParams params_;
  const Geometry& g_;
  const Rope& rope_;
  const QueryRows& queries_;
  std::size_t tokens_;
  const float* sinks_;
  std::vector<std::size_t> chosen_;  // tokens of queries_
  std::vector<RopeTurn> turns_;      // of each of them
};

}  // namespace zeromerge
