// Importance by a second reading (KVzip, arXiv 2505.23416): the engine feeds the context once more behind the
// prompt, after an instruction to repeat it, and an entry is worth the most attention that it gets:
//   importance_j = max over the queries i of the reading and the group's query heads of a_ij
// Costs another prefill of the context, over twice the entries; see LayerCache::begin_second_reading.
#pragma once

#include <algorithm>

#include "zeromerge/core/errors.hpp"
#include "zeromerge/score/prompt_score.hpp"

namespace zeromerge {

struct SecondReadingScore {
  bool needs_queries() const noexcept { return false; }
  bool needs_rope() const noexcept { return false; }
  bool lasts() const noexcept { return true; }

  // Throws Error unless there has been a reading; of what an earlier prompt left nothing new need be read.
  template <class H>
  Ratings rate(const PromptView<H>& view) const {
    std::size_t entries = 0;
    for (const H& head : view.heads) entries += head.size();
    if (view.second.empty() && entries != view.tokens * view.heads.size()) return {};
    if (view.second.size() != entries)
      fail(
          "second reading: the policy needs one and there was none of this prompt; feed the context again "
          "between begin_second_reading and end_second_reading, or use replay, which needs none");
    const std::size_t n =
        entries / view.heads.size();  // of a head; all alike, for nothing has been compressed
    return rate_heads(view, [&](std::size_t h, std::span<float> importance) {
      const auto from = view.second.begin() + static_cast<std::ptrdiff_t>(h * n);
      std::copy(from, from + static_cast<std::ptrdiff_t>(n), importance.begin());
    });
  }
};
static_assert(PromptScore<SecondReadingScore>);

}  // namespace zeromerge
