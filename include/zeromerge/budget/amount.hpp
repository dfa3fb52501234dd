// How much: a share of something, a count of entries, or bytes. "5%" and "0.05" are shares, "410" is a count,
// "24KiB" are bytes.
#pragma once

#include <cstddef>
#include <limits>

#include "zeromerge/core/errors.hpp"

namespace zeromerge {

struct Amount {
  double value = 1.0;
  bool is_share = true;
  bool is_bytes = false;  // budgets alone: BudgetQuery says how many entries they hold

  // trunc(share * whole), computed in double as the reference does; a count is itself.
  std::size_t of(std::size_t whole) const noexcept {
    return static_cast<std::size_t>(is_share ? value * static_cast<double>(whole) : value);
  }
};

inline Amount share(double value) {
  if (!(value >= 0.0) || !(value <= 1.0)) fail("a share must be in [0, 1], got ", value);
  return {value, true};
}
inline Amount count(std::size_t entries) { return {static_cast<double>(entries), false}; }
// Of a head on average: its keys and values as they are stored and everything that is kept beside them.
inline Amount bytes(std::size_t held) { return {static_cast<double>(held), false, true}; }

inline constexpr std::size_t kUnlimited = std::numeric_limits<std::size_t>::max();

}  // namespace zeromerge
