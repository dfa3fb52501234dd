// The causal attention of a prompt's stored queries over one head, computed once more: what scores share that
// look at probabilities when the prompt has ended. Rows of a group's query heads are stacked as in the prompt
// itself (row = stored token * group + g). Cost per row and entry: one dot product and one exponential.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "zeromerge/kernels/prefill_buffer.hpp"
#include "zeromerge/score/prompt_score.hpp"

namespace zeromerge {

struct RowRange {
  std::size_t first;
  std::size_t last;
};

// column[j] (+)= the sum, or the largest, of weight * probability.
struct ColumnTarget {
  kernels::ColumnStatistic statistic;
  float weight;
  float* column;                        // [entries padded to kKeyBlock]
  std::span<const float> of_last = {};  // of the rows of the last tokens, times weight; empty: of all 1
};

// Goes through the rows in blocks. After each take(first, count, scratch) is called: the probability of entry
// j in row first + r is scratch.strip[r * scratch.strip_stride + j] * scratch.sum[r], for the entries that
// the row sees; the column has been updated.
template <class H, class Take>
void attend_causally(const PromptView<H>& view, std::size_t h, RowRange rows, const ColumnTarget& target,
                     const Take& take) {
  const H& head = view.heads[h];
  const std::size_t group = view.geometry.group();
  const std::size_t before = head.size() - view.queries.tokens();
  const std::size_t size = kernels::strip_rows(head.size());
  kernels::PrefillBuffer buffer(size, head.row_size(), head.size(), true);
  std::vector<float> weight(size, target.weight);
  std::vector<float> bias(kernels::round_up(head.size(), kernels::kKeyBlock), 0.0f);
  if (head.fields().mass) std::copy_n(head.bias(), head.size(), bias.begin());
  head.keys().visit([&](const auto& keys) {
    const kernels::WideRows wide = kernels::wide(keys);
    for (std::size_t first = rows.first; first < rows.last; first += size) {
      const std::size_t count = std::min(size, rows.last - first);
      for (std::size_t r = 0; r < count; ++r) {
        const std::size_t token = (first + r) / group;
        const std::size_t query_head = h * group + (first + r) % group;
        view.queries.read(token, query_head, kernels::kLog2E, buffer.query(r));
        buffer.limit()[r] = before + token + 1;
        if (!target.of_last.empty())
          weight[r] = target.weight * target.of_last[token + target.of_last.size() - view.queries.tokens()];
        buffer.sink()[r] = view.sinks != nullptr ? view.sinks[query_head] * kernels::kLog2E : 0.0f;
      }
      const kernels::PrefillScratch scratch = buffer.scratch();
      kernels::attend_rows_with_columns(
          buffer.rows(count, bias.data(), view.sinks != nullptr, view.geometry.logit_softcap), weight.data(),
          target.statistic, wide, kernels::no_values(), scratch, buffer.out(), target.column);
      take(first, count, scratch);
    }
  });
}

}  // namespace zeromerge
