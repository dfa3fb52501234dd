#include "api.hpp"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <vector>

#include "plugin_api.h"
#include "settings.hpp"

namespace zeromerge::plugin {
namespace {

std::mutex hosts_mutex;
std::vector<Host*> hosts;

zeromerge_statistics read_statistics() {
  zeromerge_statistics s{};
  const std::lock_guard lock(hosts_mutex);
  for (const Host* host : hosts) host->count(s);
  Settings& settings = Settings::get();
  s.kv_bytes_peak += settings.held.peak();
  s.cached_calls = settings.cached_calls;
  s.stateless_calls = settings.stateless_calls;
  s.rebuilds = settings.rebuilds;
  s.refusals = settings.refusals;
  s.attention_seconds = static_cast<double>(settings.attention_nanoseconds) * 1e-9;
  return s;
}

bool set_policy(const char* spec, char* error, size_t error_size) {
  try {
    Settings::get().set_policy(spec != nullptr ? spec : "");
    return true;
  } catch (const std::exception& e) {
    if (error != nullptr && error_size > 0) {
      std::strncpy(error, e.what(), error_size - 1);
      error[error_size - 1] = '\0';
    }
    return false;
  }
}

void set_reclaim(bool on) { Settings::get().set_reclaim(on); }

// action(host) for every instance. False: it failed, and the last error says why.
template <class Action>
bool for_hosts(const Action& action) {
  const std::lock_guard lock(hosts_mutex);
  try {
    for (Host* host : hosts) action(*host);
    return true;
  } catch (const std::exception& e) {
    Settings::set_error(e.what());
    return false;
  }
}

bool finish_prompt() {
  return for_hosts([](Host& host) { host.finish_prompt(); });
}
bool begin_second_reading() {
  return for_hosts([](Host& host) { host.begin_second_reading(); });
}
bool end_second_reading() {
  return for_hosts([](Host& host) { host.end_second_reading(); });
}
bool checkpoint() {
  return for_hosts([](Host& host) { host.checkpoint(); });
}
bool rollback() {
  return for_hosts([](Host& host) { host.require_checkpoint(); }) &&
         for_hosts([](Host& host) { host.rollback(); });
}

void get_statistics(zeromerge_statistics* statistics) { *statistics = read_statistics(); }

void get_heads(zeromerge_head_visitor_t visit, void* context) {
  const std::lock_guard lock(hosts_mutex);
  std::uint64_t sequences = 0;
  for (const Host* host : hosts) sequences += host->visit_heads(visit, context, sequences);
}

void get_reasons(zeromerge_reason_visitor_t visit, void* context) {
  for (std::size_t i = 0; i < static_cast<std::size_t>(Reason::kReasons); ++i) {
    const auto reason = static_cast<Reason>(i);
    const zeromerge_reason told{text_of(reason).name, text_of(reason).advice,
                                Settings::get().reasons.counted(reason)};
    visit(context, &told);
  }
}

bool trim(std::uint64_t idle) {
  return for_hosts([idle](Host& host) { host.trim(idle); });
}

void reset_statistics() {
  Settings& s = Settings::get();
  s.cached_calls = s.stateless_calls = s.rebuilds = s.refusals = s.attention_nanoseconds = 0;
  s.reasons.reset();
  s.held.reset_peak();
}

const char* last_error() { return Settings::last_error(); }

}  // namespace

void add_host(Host* host) {
  const std::lock_guard lock(hosts_mutex);
  hosts.push_back(host);
}

void remove_host(Host* host) {
  const std::lock_guard lock(hosts_mutex);
  std::erase(hosts, host);
}

void* api_function(const char* name) {
  struct Entry {
    const char* name;
    void* function;
  };
  static const Entry entries[] = {
      {"zeromerge_set_policy", reinterpret_cast<void*>(set_policy)},
      {"zeromerge_set_reclaim", reinterpret_cast<void*>(set_reclaim)},
      {"zeromerge_finish_prompt", reinterpret_cast<void*>(finish_prompt)},
      {"zeromerge_begin_second_reading", reinterpret_cast<void*>(begin_second_reading)},
      {"zeromerge_end_second_reading", reinterpret_cast<void*>(end_second_reading)},
      {"zeromerge_checkpoint", reinterpret_cast<void*>(checkpoint)},
      {"zeromerge_rollback", reinterpret_cast<void*>(rollback)},
      {"zeromerge_trim", reinterpret_cast<void*>(trim)},
      {"zeromerge_get_statistics", reinterpret_cast<void*>(get_statistics)},
      {"zeromerge_get_reasons", reinterpret_cast<void*>(get_reasons)},
      {"zeromerge_get_heads", reinterpret_cast<void*>(get_heads)},
      {"zeromerge_reset_statistics", reinterpret_cast<void*>(reset_statistics)},
      {"zeromerge_last_error", reinterpret_cast<void*>(last_error)},
  };
  for (const Entry& entry : entries)
    if (std::strcmp(entry.name, name) == 0) return entry.function;
  return nullptr;
}

}  // namespace zeromerge::plugin
