// A running score as a user of the library writes it: attention added up, by the root of the number of
// queries that could see the entry, so that old entries are neither favoured as by the sum nor as little as
// by the mean.
#pragma once

#include <zeromerge/cache/policy.hpp>

#include <cmath>

struct AgeingAttention {
  static constexpr bool needs_probabilities = true;
  float decay() const noexcept { return 1.0f; }
  std::size_t tail_rows() const noexcept { return 0; }
  double weight(std::size_t) const noexcept { return 1.0; }
  float importance(float score, std::size_t queries) const noexcept {
    return score / std::sqrt(static_cast<float>(queries));
  }
  float merged(float a, float b) const noexcept { return a + b; }
};
static_assert(zeromerge::Score<AgeingAttention>);
