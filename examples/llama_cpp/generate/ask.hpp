// Questions about contexts: what is said, greedily, and how likely the right answer is.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>

#include "generate/job.hpp"
#include "generate/plugin.hpp"

namespace generate {

// [conversations] {answers: [questions] {text: what was said, nll: of the right answer, a token}} and, with
// the plug-in, {entries_per_head, kv_bytes} when the context has been read
nlohmann::json run_ask(const Job& job, const std::optional<Plugin>& plugin);

}  // namespace generate
