// Any score of whole prompts, chosen at run time: it is asked once per prompt, or per block of decoded
// tokens.
#pragma once

#include <span>
#include <variant>

#include "zeromerge/score/defensive.hpp"
#include "zeromerge/score/expected_attention.hpp"
#include "zeromerge/score/far_maximum.hpp"
#include "zeromerge/score/key_diff.hpp"
#include "zeromerge/score/replay.hpp"
#include "zeromerge/score/second_reading_score.hpp"
#include "zeromerge/score/value_norm.hpp"
#include "zeromerge/score/window_attention.hpp"

namespace zeromerge {

struct AnyPromptScore {
  std::variant<NoPromptScore, Replay, SecondReadingScore, WindowAttention, FarMaximum, Defensive,
               ExpectedAttention, KeyDiff>
      choice;
  bool by_value_norm = false;  // importance is multiplied by |v|

  bool needs_queries() const noexcept {
    return std::visit([](const auto& score) { return score.needs_queries(); }, choice);
  }
  bool needs_rope() const noexcept {
    return std::visit([](const auto& score) { return score.needs_rope(); }, choice);
  }
  bool lasts() const noexcept {
    return std::visit([](const auto& score) { return zeromerge::lasts(score); }, choice);
  }
  template <class H>
  Ratings rate(const PromptView<H>& view) const {
    Ratings ratings = std::visit([&](const auto& score) { return score.rate(view); }, choice);
    if (by_value_norm && !ratings.empty()) times_value_norm(view, ratings);
    return ratings;
  }

  bool rates_in_decode() const noexcept { return std::holds_alternative<KeyDiff>(choice); }
  template <class H>
  void rate_head(const H& head, std::span<float> importance) const noexcept {
    if (const auto* score = std::get_if<KeyDiff>(&choice)) score->rate_head(head, importance);
  }
};
static_assert(PromptScore<AnyPromptScore>);

}  // namespace zeromerge
