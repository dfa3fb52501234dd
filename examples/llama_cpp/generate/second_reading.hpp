// A second reading of a prompt, for policies that choose by one (kvzip): the prompt is fed once more in
// parts, each behind an instruction to repeat it, and the plug-in watches what is looked at.
#pragma once

#include "generate/model.hpp"
#include "generate/plugin.hpp"

namespace generate {

// Tokens that the context must hold beside the prompt.
inline constexpr std::int32_t kReadAgain = 1024 + 64;

// The session stands behind the prompt, which has not ended, and does so again afterwards.
void read_again(Session& session, const Model& model, const Plugin& plugin, const Tokens& prompt);

}  // namespace generate
