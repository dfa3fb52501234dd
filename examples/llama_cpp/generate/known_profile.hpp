// Head profiles that ship with the example (profiles/): the preset "best" takes that of its model.
#pragma once

#include <string>

#include "generate/model.hpp"

namespace generate {

// The policy with profile=FILE added, if it is the preset best, says nothing about heads itself, and there is
// a profile for a model of this name.
std::string with_known_profile(const std::string& policy, const Model& model);

}  // namespace generate
