// Reference queries: what will be asked of a prompt's entries later, as far as the prompt can tell. They are
// the queries of some of its own tokens, turned to positions behind it. By them values are fitted (refit.hpp)
// and what leaving entries out does to the output is measured.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "zeromerge/kernels/prefill_buffer.hpp"
#include "zeromerge/storage/prompt_view.hpp"

namespace zeromerge {

template <class H>
class ReferenceQueries {
 public:
  // `wanted` tokens of the view's queries, if there are as many: half of them the newest, half spread over
  // the others; each at a position of its own of the next `reach`, the same in every run.
  ReferenceQueries(const PromptView<H>& view, std::size_t wanted, std::size_t reach)
      : g_(view.geometry), rope_(*view.rope), queries_(view.queries), sinks_(view.sinks) {
    const std::size_t m = queries_.tokens();
    const std::size_t n = std::min(wanted, m);
    const std::size_t newest = n == m ? m : n / 2;
    for (std::size_t i = 0; i < n - newest; ++i) chosen_.push_back(i * (m - newest) / (n - newest));
    for (std::size_t t = m - newest; t < m; ++t) chosen_.push_back(t);
    for (const std::size_t t : chosen_) {
      const std::size_t to = view.tokens + mixed(t) % std::max<std::size_t>(reach, 1);
      turns_.push_back(rope_.turn(static_cast<double>(to) - static_cast<double>(view.tokens - m + t)));
    }
  }

  const LayerShape& geometry() const noexcept { return g_; }
  std::size_t rows() const noexcept { return chosen_.size() * g_.group(); }  // of a kv head

  // A reference row times the attention scale and log2(e): [head_dim].
  void read(std::size_t h, std::size_t row, float* out) const {
    queries_.read(chosen_[row / g_.group()], h * g_.group() + row % g_.group(), kernels::kLog2E, out);
    rope_.apply(turns_[row / g_.group()], out);
  }

  // One of `of` shares of the rows, for one thread of several.
  struct Share {
    std::size_t number = 0, of = 1;
  };

  // Calls take(row, output) for every reference row over the entries of `head`, which is of kv head h.
  template <class Take>
  void attend(std::size_t h, const H& head, const Take& take, Share share = {}) const {
    blocks(h, head, kernels::kRowBlock, false, share,
           [&](auto& buffer, std::size_t first, std::size_t count, const kernels::PrefillRows& rows,
               const auto& k, const auto& v) {
             kernels::attend_rows(rows, k, v, buffer.scratch(), buffer.out());
             for (std::size_t r = 0; r < count; ++r) take(first + r, buffer.out() + r * head.row_size());
           });
  }

  // [rows][head_dim], one after another.
  std::vector<float> outputs(std::size_t h, const H& head) const {
    std::vector<float> all(rows() * g_.head_dim);
    attend(h, head, [&](std::size_t r, const float* out) {
      std::copy_n(out, g_.head_dim, all.begin() + static_cast<std::ptrdiff_t>(r * g_.head_dim));
    });
    return all;
  }

  // How far the outputs over `kept` are from `outputs` over everything: the root of the mean square, relative
  // to theirs.
  double error(std::size_t h, const std::vector<float>& outputs, const H& kept) const {
    double difference = 0.0, whole = 0.0;
    attend(h, kept, [&](std::size_t r, const float* out) {
      for (std::size_t d = 0; d < g_.head_dim; ++d) {
        const double x = static_cast<double>(outputs[r * g_.head_dim + d]);
        difference += std::pow(static_cast<double>(out[d]) - x, 2.0);
        whole += x * x;
      }
    });
    return whole > 0.0 ? std::sqrt(difference / whole) : 0.0;
  }

  // Calls work(buffer, first, count, rows, keys, values) for blocks of reference rows.
  template <class Work>
  void blocks(std::size_t h, const H& head, std::size_t size, bool strips, Share share,
              const Work& work) const {
    kernels::PrefillBuffer buffer(size, head.row_size(), head.size(), strips);
    const float* bias = head.fields().mass ? head.bias() : nullptr;
    head.keys().visit([&](const auto& keys) {
      head.values().visit([&](const auto& values) {
        const kernels::WideRows k = kernels::wide(keys), v = kernels::wide(values);
        const std::size_t all = (rows() + size - 1) / size;
        for (std::size_t b = share.number * all / share.of; b < (share.number + 1) * all / share.of; ++b) {
          const std::size_t first = b * size;
          const std::size_t count = std::min(size, rows() - first);
          stack(h, first, count, head.size(), buffer);
          work(buffer, first, count, buffer.rows(count, bias, sinks_ != nullptr, g_.logit_softcap), k, v);
        }
      });
    });
  }

 private:
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
      const std::size_t query_head = h * group + (first + r) % group;
      read(h, first + r, buffer.query(r));
      buffer.limit()[r] = entries;
      buffer.sink()[r] = sinks_ != nullptr ? sinks_[query_head] * kernels::kLog2E : 0.0f;
    }
  }

  LayerShape g_;
  const Rope& rope_;
  const QueryRows& queries_;
  const float* sinks_;               // [query_heads] or null
  std::vector<std::size_t> chosen_;  // tokens of queries_
  std::vector<RopeTurn> turns_;      // of each of them
};

}  // namespace zeromerge
