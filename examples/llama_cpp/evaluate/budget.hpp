// A policy with a budget: the spec that a share of the full cache comes to.
#pragma once

#include <cstddef>
#include <string>

#include "zeromerge/budget/amount.hpp"
#include "zeromerge/cache/preset_table.hpp"

namespace evaluate {

// `policy` with what `budget` ("5%", "410", "24KiB") comes to; a share is one of the tokens seen, which heads
// follow as more of them are predicted, or (equal_bytes) of the bytes that a prompt's keys and values take in
// f16, of which everything that is held for a head counts. Nothing is ever taken back here, so nothing is
// kept for it unless the policy says so itself. "full" takes none.
inline std::string with_budget(const std::string& policy, const std::string& budget, bool equal_bytes,
                               std::size_t prompt_tokens, std::size_t head_dim) {
  const zeromerge::Spec spec(policy);
  if (spec.name() == "full") return policy;
  const zeromerge::Amount amount = zeromerge::Spec("any:budget=" + budget).budget({});
  const bool in_bytes = amount.is_bytes || (amount.is_share && equal_bytes);
  const std::size_t whole = prompt_tokens * 2 * head_dim * sizeof(zeromerge::f16);
  const char* join = policy.find(':') == std::string::npos ? ":" : ",";
  return policy + join + "budget=" + (in_bytes ? std::to_string(amount.of(whole)) + "B" : budget) +
         (spec.has("rollback") ? "" : ",rollback=0");
}

}  // namespace evaluate
