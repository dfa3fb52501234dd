#include "generate/prompt.hpp"

#include <algorithm>
#include <cstdint>

#include "generate/second_reading.hpp"
#include "zeromerge/cache/preset_table.hpp"

namespace generate {
void read_prompt(Session& session, const Model& model, const Tokens& prompt, const Job& job,
                 const std::optional<Plugin>& plugin, const std::function<void(std::size_t)>& told) {
  session.feed_all(prompt, told);
  if (!plugin) return;
  if (zeromerge::needs_second_reading(job.policy)) read_again(session, model, *plugin, prompt);
  plugin->finish_prompt();
}

nlohmann::json cache_figures(const Plugin& plugin, const Model& model) {
  const zeromerge_statistics statistics = plugin.statistics();
  return {{"entries_per_head",
           statistics.entries / std::max<std::uint64_t>(statistics.caches, 1) / model.kv_heads()},
          {"kv_bytes", statistics.kv_bytes}};
}

}  // namespace generate
