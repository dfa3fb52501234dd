// The size of what an entry adds to the output, |v_j|, as a factor of its importance (VATP, arXiv 2406.12335,
// with the Euclidean norm):
//   importance_j <- importance_j * |v_j|
// For importance that is never negative. Cost: n * head_dim per head, no attention.
#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

#include "zeromerge/core/geometry.hpp"
#include "zeromerge/kernels/kernels.hpp"
#include "zeromerge/score/always_kept.hpp"
#include "zeromerge/score/prompt_score.hpp"

namespace zeromerge {

// |v_j| of every entry, of values as they are stored.
template <class H>
std::vector<float> value_norms(const H& head) {
  float row[kMaxHeadDim];
  std::vector<float> norm(head.size());
  for (std::size_t j = 0; j < norm.size(); ++j) {
    head.read_value(j, row);
    norm[j] = std::sqrt(kernels::dot(row, row, head.head_dim()));
  }
  return norm;
}

// Entries that are always kept stay so, whatever their values. Ratings that are empty stay empty.
template <class H>
void times_value_norm(const PromptView<H>& view, Ratings& ratings) {
  view.executor(ratings.size(), [&](std::size_t h) {
    const std::vector<float> norm = value_norms(view.heads[h]);
    for (std::size_t j = 0; j < norm.size(); ++j)
      if (ratings[h][j] < kAlwaysKept) ratings[h][j] *= norm[j];
  });
}

}  // namespace zeromerge
