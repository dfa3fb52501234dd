// Where a bench is run: what every table and every JSON file begins with.
#pragma once

#include "support/report.hpp"

namespace bench {

// "cpu", "cores", "kernels" (the instructions they use), "fma_peak_gflop_per_s" and "read_gb_per_s" of one
// core (the latter from a working set that no near cache holds), and "llama_cpp": version and flags of the
// peer.
Json describe_machine();

}  // namespace bench
