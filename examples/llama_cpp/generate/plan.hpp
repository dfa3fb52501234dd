// Which runs a call needs, in which order.
#pragma once

#include "generate/options.hpp"
#include "generate/report.hpp"

namespace generate {

// Makes all the runs, streaming the first one's text to stdout. Throws UsageError, or std::runtime_error
// naming the run.
Report measure(const Options& options);

}  // namespace generate
