// DefensiveKV (arXiv 2510.13334): the worst case over a prompt's last queries in place of their mean.
//   p_gij = softmax over the whole causal row of the last `window` queries i, for the entries j before them
//   (1) rows are average-pooled along j and rescaled to the mass that they had
//   (2) m_j = max over g and i of p_gij
//   (3) d_j = max(m_j, mean over j of m): the floor is the defence
//   (4) importance_j = d_j * |v_j| / (the sum of |v| of the layer's kv heads at the same token)
//   (5) locked: the fewest entries, by their mean of p, that with the window take `lock` of what all entries
//       are looked at
//   (6) the window is always kept
// Choices. (4) The paper has the 1-norm of v W_O for |v_j|; no W_O is at hand, so it is the Euclidean norm of
// v. (5) The authors' code takes the window's share from the last columns before it, and adds up shares of
// what lies before the window alone; here both are shares of the whole. It locks at most budget - window
// entries, at the maximum; the budget is not known here, so locked entries rank above all others by their
// mean of p, and a head's budget cuts the list where that would. Attention to a sink logit is no entry's.
// Cost: window * group rows over n entries, and a sort of n.
#pragma once

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <span>
#include <vector>

#include "zeromerge/score/always_kept.hpp"
#include "zeromerge/score/causal_rows.hpp"
#include "zeromerge/score/pooling.hpp"
#include "zeromerge/score/prompt_score.hpp"
#include "zeromerge/score/value_norm.hpp"

namespace zeromerge {

struct Defensive {
  std::size_t window = 32;  // last tokens, which ask and are kept
  std::size_t kernel = 5;   // entries that are pooled; 1: none
  float lock = 0.9f;        // the share of attention whose entries are locked; 0: none

  bool needs_queries() const noexcept { return true; }
  bool needs_rope() const noexcept { return false; }

  template <class H>
  Ratings rate(const PromptView<H>& view) const {
    std::vector<std::vector<float>> norm(view.heads.size());
    view.executor(norm.size(), [&](std::size_t h) { norm[h] = value_norms(view.heads[h]); });
    const std::vector<float> total = totals_by_token(view, norm);
    return rate_heads(view, [&](std::size_t h, std::span<float> importance) {
      const std::size_t before = importance.size() - std::min(window, importance.size());
      const std::span<float> earlier = importance.first(before);
      std::vector<float> mean(kernels::round_up(importance.size(), kernels::kKeyBlock), 0.0f);
      take_worst(view, h, earlier, mean);
      raise_to_mean(earlier);
      for (std::size_t j = 0; j < before; ++j) {
        const float all = total[view.heads[h].position()[j]];
        earlier[j] = all > 0.0f ? earlier[j] * norm[h][j] / all : 0.0f;
      }
      lock_most_attended(std::span<const float>(mean).first(importance.size()), earlier);
      std::fill(importance.begin() + static_cast<std::ptrdiff_t>(before), importance.end(), kAlwaysKept);
    });
  }

 private:
  static constexpr float kLocked = 1e10f;  // above every rating that is a share, below kAlwaysKept

  // The sum over the heads that hold a token of its |v|: [tokens].
  template <class H>
  static std::vector<float> totals_by_token(const PromptView<H>& view,
                                            const std::vector<std::vector<float>>& norm) {
    std::vector<float> total(view.tokens, 0.0f);
    for (std::size_t h = 0; h < norm.size(); ++h)
      for (std::size_t j = 0; j < norm[h].size(); ++j) total[view.heads[h].position()[j]] += norm[h][j];
    return total;
  }

  // Steps (1) and (2) for the entries before the window, and the mean of p for all.
  template <class H>
  void take_worst(const PromptView<H>& view, std::size_t h, std::span<float> worst,
                  std::vector<float>& mean) const {
    const std::size_t group = view.geometry.group();
    const std::size_t stored = view.queries.tokens();
    const std::size_t asked = std::min(view.heads[h].size() - worst.size(), stored);
    if (asked == 0 || worst.empty()) return;
    const float weight = 1.0f / static_cast<float>(asked * group);
    attend_causally(
        view, h, {(stored - asked) * group, stored * group},
        {kernels::ColumnStatistic::sum, weight, mean.data()},
        [&](std::size_t, std::size_t count, const kernels::PrefillScratch& scratch) {
          for (std::size_t r = 0; r < count; ++r)
            raise(worst, {scratch.strip + r * scratch.strip_stride, worst.size()}, scratch.sum[r]);
        });
  }

  // worst_j becomes at least factor * (row pooled and rescaled)_j.
  void raise(std::span<float> worst, std::span<const float> row, float factor) const {
    const std::vector<float> pooled = average_pool(row, kernel);
    const double had = std::accumulate(row.begin(), row.end(), 0.0);
    const double has = std::accumulate(pooled.begin(), pooled.end(), 0.0);
    if (!(has > 0.0)) return;
    const auto rescale = static_cast<float>(had / has * static_cast<double>(factor));
    for (std::size_t j = 0; j < worst.size(); ++j) worst[j] = std::max(worst[j], pooled[j] * rescale);
  }

  // Step (3).
  static void raise_to_mean(std::span<float> worst) {
    const double sum = std::accumulate(worst.begin(), worst.end(), 0.0);
    const auto mean = static_cast<float>(sum / static_cast<double>(std::max<std::size_t>(worst.size(), 1)));
    for (float& x : worst) x = std::max(x, mean);
  }

  // Step (5).
  void lock_most_attended(std::span<const float> mean, std::span<float> importance) const {
    const double all = std::accumulate(mean.begin(), mean.end(), 0.0);
    const auto window_begin = mean.begin() + static_cast<std::ptrdiff_t>(importance.size());
    double missing = static_cast<double>(lock) * all - std::accumulate(window_begin, mean.end(), 0.0);
    std::vector<std::size_t> order(importance.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::sort(order.begin(), order.end(),
              [&](std::size_t a, std::size_t b) { return mean[a] != mean[b] ? mean[a] > mean[b] : a < b; });
    for (std::size_t i = 0; i < order.size() && missing > 0.0; ++i) {
      importance[order[i]] = kLocked + 1e10f * kLocked * mean[order[i]];
      missing -= static_cast<double>(mean[order[i]]);
    }
  }
};

static_assert(PromptScore<Defensive>);

}  // namespace zeromerge
