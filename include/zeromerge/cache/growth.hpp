// Capacities that follow the tokens seen. A budget that is a share of them gives more with every token, so
// heads grow while tokens are decoded, each in proportion to what it got when the prompt ended.
#pragma once

#include <algorithm>
#include <cstddef>

#include "zeromerge/cache/evict.hpp"
#include "zeromerge/cache/policy.hpp"

namespace zeromerge {

// What a head's share comes to where all heads have `mean` entries on average: rounded down, so that their
// sum never exceeds the budget.
inline std::size_t capacity_for(const HeadState& state, std::size_t mean) noexcept {
  return state.at_end.capacity * mean / std::max<std::size_t>(1, state.at_end.mean);
}

// Whether a head is due to grow. A ring that has turned is put in order for it, so large heads wait until
// that is worth it: they lag behind by one in 64 of their entries at most. Others grow with each token that
// says so: a budget of everything lets nothing leave.
inline bool grows(const HeadState& state, std::size_t mean) noexcept {
  const Division& d = state.division;
  if (d.mean == 0 || mean <= d.mean) return false;
  const std::size_t step = state.ring ? std::max<std::size_t>(1, d.capacity / 64) : 1;
  return capacity_for(state, mean) >= d.capacity + step;
}

namespace detail {

// Puts a turned ring in the order of arrival without taking memory. False: its entries lie in groups, where
// changing places would round them again; it is in order when it has turned full circle.
template <class P, class H>
bool line_up(const P& policy, H& head, HeadState& state) noexcept {
  if (!state.ring) return true;
  const std::size_t places = state.ring_places(policy.areas.as_reference);
  const std::size_t first = state.division.capacity - state.division.slack - places;
  if (state.ring_next != 0) {
    if (first < head.exact_from()) return false;
    head.rotate(first, places, state.ring_next);
  }
  state.ring = false;
  state.ring_next = 0;
  return true;
}

}  // namespace detail

// The division that a head has when all heads have `mean` entries on average: its own as long as it is not
// due to grow.
template <class P>
Division grown(const P& policy, const HeadState& state, std::size_t mean) noexcept {
  if (!grows(state, mean)) return state.division;
  const Filling filling{mean};
  Division d = division_of(policy, capacity_for(state, mean), state.division.by_mean ? &filling : nullptr);
  if (!d.possible()) return state.division;
  if (policy.gated) d.residual = std::min(d.residual, state.division.residual);  // see keep_better
  d.precise = state.division.precise;
  d.mean = mean;
  return d;
}

// Before a token comes: gives a head that grows() its new division. Until it is full again it takes tokens as
// it did before it was full for the first time. Takes no memory.
template <class P, class H>
void grow(const P& policy, H& head, HeadState& state, std::size_t mean) noexcept {
  const Division division = grown(policy, state, mean);
  if (division.mean == state.division.mean || !detail::line_up(policy, head, state)) return;
  state.division = division;
}

}  // namespace zeromerge
