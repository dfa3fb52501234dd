// Findings as JSON, read back to go on where a run stopped, and as a table.
#pragma once

#include <iosfwd>

#include "evaluate/findings.hpp"
#include "evaluate/options.hpp"

namespace evaluate {

// What options.json holds already, or nothing. Throws UsageError if it was measured with other settings; rows
// of other tasks may stand beside.
Findings read_findings(const Options& options);
// The document {"settings", "command", "rows", "floor", "heads"}.
nlohmann::json document(const Options& options, const Findings& findings);
// To options.json and, as a page, to options.html. Throws std::runtime_error if a file cannot be written; one
// that is there is replaced whole.
void write_findings(const Options& options, const Findings& findings);
void print_table(std::ostream& out, const Options& options, const Findings& findings);

}  // namespace evaluate
