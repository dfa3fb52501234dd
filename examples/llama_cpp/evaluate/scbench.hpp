// The task "scbench": generated contexts with several questions each, in the two ways that SCBench shares a
// context (arXiv 2412.10319).
//   multi-request  the context is compressed with nothing asked; every question starts from it
//   multi-turn     it is compressed in sight of the first question; questions and right answers pile up
#pragma once

#include "evaluate/findings.hpp"
#include "evaluate/options.hpp"

namespace evaluate {

// Measures what `findings` lacks. Throws UsageError if --prompt-tokens leaves no room for a context.
void measure_scbench(const Options& options, Findings& findings, const Changed& changed);

}  // namespace evaluate
