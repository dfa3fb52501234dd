// How much: a share of something, or a count of entries. "5%" and "0.05" are shares, "410" is a count.
#pragma once

#include <cstddef>
#include <limits>

#include "zeromerge/core/errors.hpp"

namespace zeromerge {

struct Amount {
  double value = 1.0;
  bool is_share = true;

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

inline constexpr std::size_t kUnlimited = std::numeric_limits<std::size_t>::max();

}  // namespace zeromerge
