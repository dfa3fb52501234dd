// The task "continuation": each text's prompt goes through the plug-in, then the text that follows is
// predicted token by token (teacher-forced), and every prediction is compared with that of llama.cpp with
// nothing left out.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <vector>

#include "evaluate/options.hpp"
#include "evaluate/summary.hpp"

namespace evaluate {

// What each head has kept of a prompt, of one run: {text, policy, budget, tokens, layers}, see
// kept_of_prompt; null if it was not asked for.
using Heads = nlohmann::json;

struct Findings {
  std::vector<Row> rows;
  std::vector<Row> floor;  // of each text: everything kept through the plug-in, so what remains is rounding
  Heads heads;
};

// Measures what `findings` lacks and calls changed() after each row. Throws UsageError if a text is too
// short.
void measure_continuation(const Options& options, Findings& findings, const std::function<void()>& changed);

}  // namespace evaluate
