// Any score of whole prompts, chosen at run time: it is asked once per prompt.
#pragma once

#include <span>
#include <variant>

#include "zeromerge/score/replay.hpp"
#include "zeromerge/score/second_reading_score.hpp"

namespace zeromerge {

struct AnyPromptScore {
  std::variant<NoPromptScore, Replay, SecondReadingScore> choice;
  bool needs_queries() const noexcept {
    return std::visit([](const auto& score) { return score.needs_queries(); }, choice);
  }
  bool needs_rope() const noexcept {
    return std::visit([](const auto& score) { return score.needs_rope(); }, choice);
  }
  template <class H>
  Ratings rate(const PromptView<H>& view) const {
    return std::visit([&](const auto& score) { return score.rate(view); }, choice);
  }
};
static_assert(PromptScore<AnyPromptScore>);

}  // namespace zeromerge
