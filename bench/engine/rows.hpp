// From what was measured at one context to the lines of the table.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/group.hpp"
#include "support/report.hpp"

namespace bench {

std::vector<Column> engine_columns();
std::vector<Json> engine_rows(std::int32_t context, const std::vector<Measured>& measured);

}  // namespace bench
