// Whether the caches hold what the table says. Throws std::runtime_error with the numbers.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>

#include "engine/contenders.hpp"

namespace bench {

// Once filled: exactly so many tokens; `full` keeps each, a budget has been reached.
void verify_filled(const Contender& contender, const nlohmann::json& statistics, std::size_t context);

// After the bursts: no cache was read again from llama.cpp's cells, nor left aside for them, meanwhile.
void verify_unbroken(const Contender& contender, const nlohmann::json& before, const nlohmann::json& after);

}  // namespace bench
