// KeyDiff (arXiv 2504.15364): keys unlike the others are worth more.
//   importance_j = -cos(k_j, mean over the entries of k / |k|)
// Keys as they are stored, after RoPE. A key of zeros counts as unlike every other (cosine 0). Needs no
// queries, so it can be asked again while tokens are decoded. Cost: 2 n head_dim per head, no attention.
#pragma once

#include <cmath>
#include <cstddef>
#include <span>

#include "zeromerge/core/geometry.hpp"
#include "zeromerge/kernels/kernels.hpp"
#include "zeromerge/score/prompt_score.hpp"

namespace zeromerge {

struct KeyDiff {
  bool needs_queries() const noexcept { return false; }
  bool needs_rope() const noexcept { return false; }
  bool rates_in_decode() const noexcept { return true; }

  template <class H>
  Ratings rate(const PromptView<H>& view) const {
    return rate_heads(
        view, [&](std::size_t h, std::span<float> importance) { rate_head(view.heads[h], importance); });
  }

  // The same for the entries of one head, without taking memory.
  template <class H>
  void rate_head(const H& head, std::span<float> importance) const noexcept {
    // The mean's length does not matter to a cosine, so the sum of the unit keys stands for it.
    float row[kMaxHeadDim];
    float sum[kMaxHeadDim] = {};
    for (std::size_t j = 0; j < importance.size(); ++j) {
      head.read_key(j, row);
      const float length = std::sqrt(kernels::dot(row, row, head.head_dim()));
      importance[j] = length;
      if (length > 0.0f)
        for (std::size_t d = 0; d < head.head_dim(); ++d) sum[d] += row[d] / length;
    }
    const float whole = std::sqrt(kernels::dot(sum, sum, head.head_dim()));
    for (std::size_t j = 0; j < importance.size(); ++j) {
      head.read_key(j, row);
      const float lengths = importance[j] * whole;
      importance[j] = lengths > 0.0f ? -kernels::dot(row, sum, head.head_dim()) / lengths : 0.0f;
    }
  }
};

static_assert(PromptScore<KeyDiff>);

}  // namespace zeromerge
