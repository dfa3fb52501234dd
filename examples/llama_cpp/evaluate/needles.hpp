// The task "needles": numbers hidden in texts, asked for after the text has been compressed with nobody
// knowing what will be asked, or in sight of the question. What the full cache cannot answer does not count.
#pragma once

#include "evaluate/findings.hpp"
#include "evaluate/options.hpp"

namespace evaluate {

// Measures what `findings` lacks. Throws UsageError if a text is too short.
void measure_needles(const Options& options, Findings& findings, const Changed& changed);

}  // namespace evaluate
