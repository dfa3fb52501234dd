// SnapKV (arXiv 2404.14469): who the last tokens of a prompt look at.
//   s_j = mean over the last `window` queries i and the group's query heads of a_ij
//   importance_j = s pooled along the entries before the window; the window itself is always kept
// a is the softmax over the whole causal row. The paper pools by the maximum over 5 or 7 entries, its code
// and those that followed by the average as well, which divides by `kernel` at the ends too. Means come
// before pooling: for the average that is the same, and for the maximum it is what one group's heads agree
// on. Of a window whose first queries are no longer there the others count. Cost: window * group rows over n
// entries, less than one part in a hundred of a long prompt's attention.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "zeromerge/score/always_kept.hpp"
#include "zeromerge/score/causal_rows.hpp"
#include "zeromerge/score/pooling.hpp"
#include "zeromerge/score/prompt_score.hpp"

namespace zeromerge {

struct WindowAttention {
  std::size_t window = 32;  // last tokens, which ask and are kept
  std::size_t kernel = 5;   // entries that are pooled; 1: none
  bool maximum = false;     // pooled by their maximum, not their average

  bool needs_queries() const noexcept { return true; }
  bool needs_rope() const noexcept { return false; }

  template <class H>
  Ratings rate(const PromptView<H>& view) const {
    return rate_heads(view, [&](std::size_t h, std::span<float> importance) {
      const std::size_t before = importance.size() - std::min(window, importance.size());
      const std::vector<float> mean = mean_attention(view, h, importance.size() - before);
      const std::span<const float> seen(mean.data(), before);
      const std::vector<float> pooled = maximum ? maximum_pool(seen, kernel) : average_pool(seen, kernel);
      std::copy(pooled.begin(), pooled.end(), importance.begin());
      std::fill(importance.begin() + static_cast<std::ptrdiff_t>(before), importance.end(), kAlwaysKept);
    });
  }

 private:
  // s of every entry, [entries padded]; 0 where nobody can be asked.
  template <class H>
  static std::vector<float> mean_attention(const PromptView<H>& view, std::size_t h, std::size_t newest) {
    std::vector<float> mean(kernels::round_up(view.heads[h].size(), kernels::kKeyBlock), 0.0f);
    const std::size_t stored = view.queries.tokens();
    const std::size_t asked = std::min(newest, stored);
    const std::size_t group = view.geometry.group();
    if (asked == 0) return mean;
    const float weight = 1.0f / static_cast<float>(asked * group);
    attend_causally(view, h, {(stored - asked) * group, stored * group},
                    {kernels::ColumnStatistic::sum, weight, mean.data()},
                    [](std::size_t, std::size_t, const kernels::PrefillScratch&) {});
    return mean;
  }
};

static_assert(PromptScore<WindowAttention>);

}  // namespace zeromerge
