// What each head has kept of a prompt, in a form that does not grow with the prompt.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>

#include "generate/plugin.hpp"

namespace generate {

// A prompt is cut into this many stretches of equal length.
inline constexpr std::size_t kStretches = 64;

// {tokens, layers: [[{entries, kept: [kStretches]}, ... kv heads], ... layers]}: how many entries each kv
// head keeps, and how many of them come from each stretch, in the order of positions. For one sequence.
nlohmann::json kept_of_prompt(const Plugin& plugin);

}  // namespace generate
