// The running score of a prompt whose queries are kept until it ends: the columns of its last rows are added
// up then, once, and not in every call that might turn out to be the last.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "zeromerge/cache/prompt_end.hpp"
#include "zeromerge/score/causal_rows.hpp"

namespace zeromerge::detail {

// What the last rows of `tokens` count for a score, the last of them 1; rows before them do not count.
template <class S>
std::vector<float> row_weights(const S& score, std::size_t tokens) {
  if constexpr (!S::needs_probabilities) return {};
  std::vector<float> weight(score.tail_rows() == 0 ? tokens : std::min(tokens, score.tail_rows()));
  for (std::size_t t = 0; t < weight.size(); ++t)
    weight[t] = static_cast<float>(score.weight(weight.size() - 1 - t));
  return weight;
}

// score[j] <- weight(unscored) * score[j] + the sum over the rows of the last tokens that count, of the
// newest `unscored` ones, of weight * probability. Their queries are the last of the view's. A head's rows
// are dealt to kParts items, whose sums are added in order, so that results do not depend on threads.
template <class P, class H>
void score_tail(const PromptLayer<P, H>& layer, std::size_t unscored) {
  constexpr std::size_t kParts = 4;
  const auto& score = layer.policy.score;
  const PromptView<H>& view = layer.view;
  const std::size_t group = view.geometry.group();
  const std::size_t stored = view.queries.tokens();
  const std::vector<float> weight = row_weights(score, std::min(unscored, stored));
  const std::size_t rows = weight.size() * group;
  const std::size_t first = stored * group - rows;
  std::vector<std::vector<float>> parts(layer.heads.size() * kParts);
  for (std::size_t i = 0; i < parts.size(); ++i)
    parts[i].assign(kernels::round_up(layer.heads[i / kParts].size(), kernels::kKeyBlock), 0.0f);
  view.executor(parts.size(), [&](std::size_t i) {
    const std::size_t part = i % kParts;
    attend_causally(view, i / kParts, {first + part * rows / kParts, first + (part + 1) * rows / kParts},
                    {kernels::ColumnStatistic::sum, 1.0f, parts[i].data(), weight},
                    [](std::size_t, std::size_t, const kernels::PrefillScratch&) {});
  });
  const auto keep = static_cast<float>(score.weight(unscored));
  for (std::size_t h = 0; h < layer.heads.size(); ++h)
    for (std::size_t j = 0; j < layer.heads[h].size(); ++j) {
      float& x = layer.heads[h].score()[j];
      x *= keep;
      for (std::size_t part = 0; part < kParts; ++part) x += parts[h * kParts + part][j];
    }
}

}  // namespace zeromerge::detail
