// What has been measured so far, as it stands in the JSON document: rows of every task side by side.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>

namespace evaluate {

struct Findings {
  nlohmann::json settings = nlohmann::json::object();  // what the rows have in common
  nlohmann::json rows = nlohmann::json::array();
  nlohmann::json floor = nlohmann::json::array();  // of everything kept: rows of the same form
  nlohmann::json heads;  // what each head has kept of a prompt, of one run: {text, policy, budget, tokens,
                         // layers}, see kept_of_prompt; null if it was not asked for
};

// Called after each new row.
using Changed = std::function<void()>;

// Whether a row is what `key` says, member by member.
inline bool matches(const nlohmann::json& row, const nlohmann::json& key) {
  for (const auto& [name, value] : key.items())
    if (!row.contains(name) || row[name] != value) return false;
  return true;
}

inline bool has(const nlohmann::json& rows, const nlohmann::json& key) {
  for (const nlohmann::json& row : rows)
    if (matches(row, key)) return true;
  return false;
}

}  // namespace evaluate
