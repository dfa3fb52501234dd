// How every measured run reads its prompt, and what runs with the plug-in have in common.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>

#include "generate/model.hpp"
#include "generate/plugin.hpp"

namespace generate {

// Feeds a prompt and ends it. Compressing it is part of that: the plug-in is told that it has ended, instead
// of finding out at the first token; a policy that needs a second reading gets one before. `told`: how many
// tokens are done.
void read_prompt(Session& session, const Model& model, const Tokens& prompt, const Job& job,
                 const std::optional<Plugin>& plugin, const std::function<void(std::size_t)>& told);

// {entries_per_head, kv_bytes} now
nlohmann::json cache_figures(const Plugin& plugin, const Model& model);

// The result of work(). The plug-in knows why it refused a call; llama.cpp only that something failed.
template <class Work>
nlohmann::json with_reason(const std::optional<Plugin>& plugin, Work work) {
  try {
    nlohmann::json result = work();
    if (plugin) plugin->require_used();
    return result;
  } catch (const std::exception& error) {
    const std::string reason = plugin ? plugin->last_error() : "";
    throw std::runtime_error(error.what() + (reason.empty() ? "" : "; the plug-in says: " + reason));
  }
}

}  // namespace generate
