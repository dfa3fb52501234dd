// A policy with a budget: the spec that a share of the full cache comes to.
#pragma once

#include <cstddef>
#include <string>

#include "zeromerge/budget/amount.hpp"
#include "zeromerge/cache/preset_table.hpp"

namespace evaluate {

// Bits that a stored number takes with its share of scales, for rows of head_dim numbers.
inline double stored_bits(zeromerge::StorageType type, std::size_t head_dim) {
  switch (type) {
    case zeromerge::StorageType::f32:
      return 32.0;
    case zeromerge::StorageType::q8:
      return 8.0 + 32.0 / static_cast<double>(head_dim);
    case zeromerge::StorageType::q4:
      return 5.0;
    default:
      return 16.0;
  }
}

// How many entries of this policy take the bytes of one in f16, scales counted.
inline double entries_per_f16(const std::string& policy, std::size_t head_dim) {
  const auto [keys, values] = zeromerge::stored_types(policy);
  return 32.0 / (stored_bits(keys, head_dim) + stored_bits(values, head_dim));
}

// `policy` with the entries that `budget` ("5%", "410") comes to for a prompt; a share is one of the prompt's
// entries, or of its bytes in f16. "full" takes none.
inline std::string with_budget(const std::string& policy, const std::string& budget, bool equal_bytes,
                               std::size_t prompt_tokens, std::size_t head_dim) {
  const zeromerge::Spec spec(policy);
  if (spec.name() == "full") return policy;
  const zeromerge::Amount amount = zeromerge::Spec("any:budget=" + budget).amount("budget", {});
  std::size_t entries = amount.of(prompt_tokens);
  if (equal_bytes)
    entries = static_cast<std::size_t>(static_cast<double>(entries) * entries_per_f16(policy, head_dim));
  const char* join = policy.find(':') == std::string::npos ? ":" : ",";
  return policy + join + "budget=" + std::to_string(entries);
}

}  // namespace evaluate
