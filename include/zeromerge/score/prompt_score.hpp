// Scores that look at a prompt once it has ended: who is worth keeping until then is known by all of its
// tokens at once. They stand beside the running score, which sees one query after another and goes on while
// tokens are decoded.
#pragma once

#include <concepts>
#include <cstddef>
#include <span>
#include <vector>

#include "zeromerge/storage/prompt_view.hpp"

namespace zeromerge {

// [kv_heads][entries]: higher is kept; ties go to the lower entry. Empty: there was nothing to go by, so the
// running score decides.
using Ratings = std::vector<std::vector<float>>;

// What the cache asks of a prompt score. Optional:
//   lasts()            true: what it chose stays, for it is about any future query; a later prompt only adds,
//                      and decoded tokens compete with what the running score chose (and, with Areas::hold,
//                      more and more of the rest). Otherwise every prompt
//                      rates everything anew and all entries compete in decode.
//   rates_in_decode()  true: it can be asked again while tokens are decoded; rate_head(head, importance),
//                      which takes no memory, is then asked whenever tokens leave, and what it says stands in
//                      place of the running score.
template <class S>
concept PromptScore = requires(const S& s, const PromptView<Head<float>>& view) {
  { s.needs_queries() } -> std::convertible_to<bool>;
  { s.needs_rope() } -> std::convertible_to<bool>;
  { s.rate(view) } -> std::same_as<Ratings>;
};

template <class S>
bool lasts(const S& score) noexcept {
  if constexpr (requires { score.lasts(); })
    return score.lasts();
  else
    return false;
}

// None: the running score decides alone.
struct NoPromptScore {
  bool needs_queries() const noexcept { return false; }
  bool needs_rope() const noexcept { return false; }
  template <class H>
  Ratings rate(const PromptView<H>&) const {
    return {};
  }
};

// Ratings with one call of rate(head, importance) for every head, side by side.
template <class H, class Rate>
Ratings rate_heads(const PromptView<H>& view, const Rate& rate) {
  Ratings all(view.heads.size());
  for (std::size_t h = 0; h < all.size(); ++h) all[h].assign(view.heads[h].size(), 0.0f);
  view.executor(all.size(), [&](std::size_t h) { rate(h, std::span<float>(all[h])); });
  return all;
}

}  // namespace zeromerge
