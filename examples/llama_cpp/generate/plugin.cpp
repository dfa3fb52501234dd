#include "generate/plugin.hpp"

#include <ggml-backend.h>

#include <array>
#include <cstdlib>
#include <stdexcept>

#include "generate/error.hpp"

namespace generate {
namespace {

ggml_backend_reg_t registry() {
  if (ggml_backend_reg_t found = ggml_backend_reg_by_name("zeromerge")) return found;
  const char* path = std::getenv("GGML_BACKEND_PATH");
  throw std::runtime_error(std::string("ggml could not load the plug-in ") + (path ? path : "(none named)") +
                           "; build it against the same version of ggml");
}

template <class Function>
Function find(ggml_backend_reg_t from, const char* name) {
  void* address = ggml_backend_reg_get_proc_address(from, name);
  if (address == nullptr) throw std::runtime_error(std::string("the plug-in lacks the function ") + name);
  return reinterpret_cast<Function>(address);
}

}  // namespace

Plugin::Plugin()
    : set_policy_(find<zeromerge_set_policy_t>(registry(), "zeromerge_set_policy")),
      set_reclaim_(find<zeromerge_set_reclaim_t>(registry(), "zeromerge_set_reclaim")),
      finish_prompt_(find<zeromerge_finish_prompt_t>(registry(), "zeromerge_finish_prompt")),
      begin_second_reading_(
          find<zeromerge_begin_second_reading_t>(registry(), "zeromerge_begin_second_reading")),
      end_second_reading_(find<zeromerge_end_second_reading_t>(registry(), "zeromerge_end_second_reading")),
      checkpoint_(find<zeromerge_checkpoint_t>(registry(), "zeromerge_checkpoint")),
      rollback_(find<zeromerge_rollback_t>(registry(), "zeromerge_rollback")),
      get_statistics_(find<zeromerge_get_statistics_t>(registry(), "zeromerge_get_statistics")),
      get_heads_(find<zeromerge_get_heads_t>(registry(), "zeromerge_get_heads")),
      last_error_(find<zeromerge_last_error_t>(registry(), "zeromerge_last_error")) {}

void Plugin::configure(const std::string& policy, bool reclaim) const {
  std::array<char, 1024> error{};
  if (!set_policy_(policy.c_str(), error.data(), error.size())) {
    throw UsageError(std::string("--policy: ") + error.data());  // it names the spec itself
  }
  set_reclaim_(reclaim);
}

void Plugin::finish_prompt() const {
  if (!finish_prompt_()) throw std::runtime_error("the plug-in cannot end the prompt");
}

void Plugin::begin_second_reading() const {
  if (!begin_second_reading_()) throw std::runtime_error("the plug-in cannot watch a second reading");
}

void Plugin::end_second_reading() const {
  if (!end_second_reading_()) throw std::runtime_error("the plug-in cannot end the second reading");
}

void Plugin::checkpoint() const {
  if (!checkpoint_()) throw std::runtime_error("the plug-in cannot take a checkpoint");
}

void Plugin::rollback() const {
  if (!rollback_()) throw std::runtime_error("the plug-in cannot go back");
}

zeromerge_statistics Plugin::statistics() const {
  zeromerge_statistics statistics{};
  get_statistics_(&statistics);
  return statistics;
}

std::string Plugin::last_error() const {
  const char* text = last_error_();
  return text == nullptr ? "" : text;
}

void Plugin::require_used() const {
  const zeromerge_statistics counts = statistics();
  if (counts.cached_calls > 0) return;
  throw std::runtime_error("the plug-in was loaded but answered no attention from a cache (" +
                           std::to_string(counts.stateless_calls) + " answered without one, " +
                           std::to_string(counts.refusals) + " refused)");
}

}  // namespace generate
