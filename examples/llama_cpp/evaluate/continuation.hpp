// The task "continuation": each text's prompt goes through the plug-in, then the text that follows is
// predicted token by token (teacher-forced), and every prediction is compared with that of llama.cpp with
// nothing left out.
#pragma once

#include "evaluate/findings.hpp"
#include "evaluate/options.hpp"

namespace evaluate {

// Measures what `findings` lacks. Throws UsageError if a text is too short.
void measure_continuation(const Options& options, Findings& findings, const Changed& changed);

}  // namespace evaluate
