// Findings as JSON, read back to go on where a run stopped, and as a table.
#pragma once

#include <iosfwd>

#include "evaluate/continuation.hpp"

namespace evaluate {

// What options.json holds already, or nothing. Throws UsageError if it was measured differently.
Findings read_findings(const Options& options);
// Throws std::runtime_error if the file cannot be written; a file that is there is replaced whole.
void write_findings(const Options& options, const Findings& findings);
void print_table(std::ostream& out, const Options& options, const Findings& findings);

}  // namespace evaluate
