#include "generate/prompt.hpp"

#include <algorithm>
#include <cstdint>

namespace generate {
namespace {

// What a policy wants of the engine between the prompt and its end. None wants anything yet; one that does
// leaves the session where it found it (Session::place and return_to).
void prepare(Session& /*session*/, const Job& /*job*/, const Plugin& /*plugin*/) {}

}  // namespace

void read_prompt(Session& session, const Tokens& prompt, const Job& job, const std::optional<Plugin>& plugin,
                 const std::function<void(std::size_t)>& told) {
  session.feed_all(prompt, told);
  if (!plugin) return;
  prepare(session, job, *plugin);
  plugin->finish_prompt();
}

nlohmann::json cache_figures(const Plugin& plugin, const Model& model) {
  const zeromerge_statistics statistics = plugin.statistics();
  return {{"entries_per_head",
           statistics.entries / std::max<std::uint64_t>(statistics.caches, 1) / model.kv_heads()},
          {"kv_bytes", statistics.kv_bytes}};
}

}  // namespace generate
