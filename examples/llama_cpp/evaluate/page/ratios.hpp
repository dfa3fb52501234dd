// Policies against the first one, as a table with intervals drawn.
#pragma once

#include <span>
#include <string>

#include "evaluate/page/sections.hpp"
#include "evaluate/summary.hpp"

namespace evaluate {

// Nothing where there is only one policy.
std::string ratios(std::span<const Summary> summaries, const Policies& policies);

}  // namespace evaluate
