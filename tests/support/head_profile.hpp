// A head profile from its levels alone.
#pragma once

#include <cstddef>
#include <memory>
#include <sstream>
#include <string>

#include "zeromerge/budget/profile.hpp"

namespace zeromerge::test {

// levels: "budget 0.1 1 3 ..." with layers * kv_heads shares each.
inline std::shared_ptr<const HeadProfile> head_profile(const std::string& levels, std::size_t layers,
                                                       std::size_t kv_heads) {
  std::istringstream text("zeromerge-profile 1 layers " + std::to_string(layers) + " kv_heads " +
                          std::to_string(kv_heads) + " " + levels);
  return std::make_shared<HeadProfile>(HeadProfile::parse(text, "test"));
}

}  // namespace zeromerge::test
