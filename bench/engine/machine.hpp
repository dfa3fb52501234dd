// Where a bench was run.
#pragma once

#include <cstdint>

#include "support/report.hpp"

namespace bench {

// describe_machine() and "threads", "prompt_threads", "llama_cpp": version and flags.
Json machine_of(std::int32_t threads, std::int32_t prompt_threads);

}  // namespace bench
