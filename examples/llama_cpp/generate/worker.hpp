// What a child process does: one job, its result to a file.
#pragma once

namespace generate {

// The exit code. The result file holds the figures, or {"error": text, "usage": whether the user can put it
// right}.
int worker_main(const char* job_file, const char* result_file);

}  // namespace generate
