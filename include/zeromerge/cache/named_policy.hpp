// The policy that a text names, with what its keys say: see presets.hpp for the names.
#pragma once

#include <string>
#include <utility>

#include "zeromerge/cache/preset_table.hpp"
#include "zeromerge/cache/read_policy.hpp"

namespace zeromerge::detail {

// Calls make(policy) with it and returns what that returns. Throws Error unless the text names a policy with
// valid keys and values; reads a profile's file.
template <class Make>
auto with_named_policy(const std::string& text, const Make& make) {
  Spec spec(text);
  if (spec.name() == "full") {
    spec.allow_only({"storage", "keys", "values", "rollback"});
    Full<any_storage> policy;
    policy.areas.rollback = read_rollback(spec);
    return make(stored_as(std::move(policy), spec, StorageType::f16));
  }
  if (spec.name() == "streaming") return make(stored_as(read_streaming(spec), spec, StorageType::f16));
  if (assume_preset(spec)) {
    allow_policy_keys(spec);
    const bool reference = spec.choice("reference", {"0", "1"}, 0) == 1;
    return make(stored_as(read_zeromerge(spec), spec, reference ? StorageType::f32 : StorageType::f16));
  }
  fail("policy '", text, "': unknown name '", spec.name(), "'; there are full, streaming, ", preset_names());
}

}  // namespace zeromerge::detail
