// A score of whole prompts as a user of the library writes it: what the last tokens look at, times the length
// of its value.
#pragma once

#include <zeromerge/score/causal_rows.hpp>
#include <zeromerge/score/value_norm.hpp>

struct ValueWindow {
  std::size_t window = 16;
  bool needs_queries() const noexcept { return true; }
  bool needs_rope() const noexcept { return false; }

  template <class H>
  zeromerge::Ratings rate(const zeromerge::PromptView<H>& view) const {
    return zeromerge::rate_heads(view, [&](std::size_t h, std::span<float> importance) {
      const std::size_t rows = view.queries.tokens() * view.geometry.group();
      const std::size_t asked = std::min(window * view.geometry.group(), rows);
      std::vector<float> column(
          zeromerge::kernels::round_up(importance.size(), zeromerge::kernels::kKeyBlock));
      zeromerge::attend_causally(view, h, {rows - asked, rows},
                                 {zeromerge::kernels::ColumnStatistic::sum, 1.0f, column.data()},
                                 [](auto&&...) {});
      const std::vector<float> norm = zeromerge::value_norms(view.heads[h]);
      for (std::size_t j = 0; j < norm.size(); ++j) importance[j] = column[j] * norm[j];
    });
  }
};
static_assert(zeromerge::PromptScore<ValueWindow>);
