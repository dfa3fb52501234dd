#include "settings.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "caches.hpp"
#include "zeromerge/core/errors.hpp"
#include "zeromerge/kernels/isa.hpp"

namespace zeromerge::plugin {

Settings& Settings::get() {
  static Settings settings;
  return settings;
}

// A wrong spec in the environment must not pass for a working one: the plug-in says so and keeps everything.
Settings::Settings() : policy_("full") {
  const char* reclaim = std::getenv("ZEROMERGE_RECLAIM");
  reclaim_ = reclaim != nullptr && std::strcmp(reclaim, "0") != 0 && *reclaim != '\0';
  if (const CpuFeatures cpu = cpu_features(); cpu.refused != nullptr)
    std::fprintf(stderr, "zeromerge: ZEROMERGE_ISA=%s is no level of this CPU, %s is used\n", cpu.refused,
                 isa_name(cpu.used));
  const char* spec = std::getenv("ZEROMERGE_POLICY");
  try {
    policy_ = "zeromerge:budget=5%";
    if (spec != nullptr && *spec != '\0') set_policy(spec);
  } catch (const std::exception& e) {
    policy_ = "full";
    std::fprintf(stderr, "zeromerge: ZEROMERGE_POLICY is wrong, every entry is kept: %s\n", e.what());
  }
}

std::string Settings::policy() const {
  const std::lock_guard lock(mutex_);
  return policy_;
}

void Settings::set_policy(const std::string& spec) {
  CacheOptions options;
  options.rope =
      std::make_shared<Rope>(RopeParams{.dims = 64}, 64);  // a layer's own comes with its operators
  (void)new_cache(spec, Geometry{}, std::move(options));   // throws if it is wrong
  const std::lock_guard lock(mutex_);
  policy_ = spec;
}

namespace {
thread_local std::string error;
}

void Settings::set_error(const std::string& text) { error = text; }

const char* Settings::last_error() { return error.c_str(); }

}  // namespace zeromerge::plugin
