// Far maximum: how much an entry was ever looked at from a distance, the long-range half of what a second
// reading of the prompt would find (KVzip, arXiv 2505.23416), from the ordinary attention of the first.
//   importance_j = max over the stored queries i with position_i - position_j >= distance and the group's
//                  query heads of a_ij
// a is the softmax over the whole causal row. Entries that no stored query sees from so far are 0: the newest
// `distance` tokens, which the recent area is for. Cost: the prompt's attention without its values.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "zeromerge/score/causal_rows.hpp"
#include "zeromerge/score/prompt_score.hpp"

namespace zeromerge {

struct FarMaximum {
  std::size_t distance = 64;  // tokens from a query to an entry that it counts for

  bool needs_queries() const noexcept { return true; }
  bool needs_rope() const noexcept { return false; }
  bool lasts() const noexcept { return true; }

  // The work of a head is dealt to kParts items, whose maxima do not depend on threads.
  template <class H>
  Ratings rate(const PromptView<H>& view) const {
    Ratings parts(view.heads.size() * kParts);
    for (std::size_t i = 0; i < parts.size(); ++i) parts[i].assign(view.heads[i / kParts].size(), 0.0f);
    view.executor(parts.size(), [&](std::size_t i) { rate_part(view, i / kParts, i % kParts, parts[i]); });
    Ratings all(view.heads.size());
    for (std::size_t h = 0; h < all.size(); ++h) {
      all[h] = parts[h * kParts];
      for (std::size_t p = 1; p < kParts; ++p)
        for (std::size_t j = 0; j < all[h].size(); ++j)
          all[h][j] = std::max(all[h][j], parts[h * kParts + p][j]);
    }
    return all;
  }

 private:
  static constexpr std::size_t kParts = 4;

  template <class H>
  void rate_part(const PromptView<H>& view, std::size_t h, std::size_t part, std::span<float> far) const {
    const std::size_t rows = view.queries.tokens() * view.geometry.group();
    if (rows == 0) return;
    std::vector<float> column(kernels::round_up(far.size(), kernels::kKeyBlock), 0.0f);
    attend_causally(view, h, {part * rows / kParts, (part + 1) * rows / kParts},
                    {kernels::ColumnStatistic::maximum, 1.0f, column.data()},
                    [&](std::size_t first, std::size_t count, const kernels::PrefillScratch& scratch) {
                      take_block(view, h, first, count, scratch, column, far);
                      std::fill(column.begin(), column.end(), 0.0f);
                    });
  }

  // Of an entry that is far from every row of a block the block's maximum counts. Near the diagonal, where an
  // entry is far from some of the rows only, the strip of probabilities is looked through.
  template <class H>
  void take_block(const PromptView<H>& view, std::size_t h, std::size_t first, std::size_t count,
                  const kernels::PrefillScratch& scratch, std::span<const float> column,
                  std::span<float> far) const {
    const std::uint32_t* position = view.heads[h].position();
    const std::size_t start = view.tokens - view.queries.tokens();
    const auto asks_at = [&](std::size_t row) { return start + (first + row) / view.geometry.group(); };
    std::size_t low = far.size(), high = 0;  // entries near the diagonal
    for (std::size_t j = 0; j < far.size(); ++j) {
      const std::size_t from = position[j] + distance;
      if (from <= asks_at(0)) {
        far[j] = std::max(far[j], column[j]);
      } else if (from <= asks_at(count - 1)) {
        low = std::min(low, j);
        high = j + 1;
      }
    }
    for (std::size_t r = 0; r < count; ++r) {
      const float* exponential = scratch.strip + r * scratch.strip_stride;
      for (std::size_t j = low; j < high; ++j)
        if (position[j] + distance <= asks_at(r)) far[j] = std::max(far[j], exponential[j] * scratch.sum[r]);
    }
  }
};

static_assert(PromptScore<FarMaximum>);

}  // namespace zeromerge
