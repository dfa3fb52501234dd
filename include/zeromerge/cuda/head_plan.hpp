// What becomes of a head at the end of a prompt, as numbers: who is asked for, which slots go where, and what
// the head's state is then. Decided on the host from what it knows of a head; kernels do it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "zeromerge/cache/policy.hpp"
#include "zeromerge/kernels/cuda/compact.hpp"
#include "zeromerge/kernels/cuda/layout.hpp"
#include "zeromerge/kernels/cuda/select.hpp"

namespace zeromerge::cuda {

// A number of entries as the device has it.
inline std::uint32_t device_count(std::size_t n) noexcept {
  return n == kUnlimited ? kKeepsAll : static_cast<std::uint32_t>(n);
}

// Entries for which a head of this state needs memory as long as tokens are decoded, the newest included; of
// sequences of at most `longest` tokens, where that is not 0.
inline std::size_t room_for(const HeadState& state, std::size_t longest) noexcept {
  const bool all = state.capacity == kKeepsAll;
  std::size_t room = all ? longest : std::size_t{state.capacity} + 1;
  if (longest != 0) room = std::min(room, longest);
  return std::max<std::size_t>(room, state.size + (all ? 0u : 1u));
}

// All slots to other memory, a turned ring in the order of arrival.
inline CompactHead move_head(const HeadState& state, const StepRule& rule) noexcept {
  CompactHead c{};
  c.front = c.last = c.size = state.size;
  if (state.ring == 0) return c;
  c.places = state.recent;
  c.ring = state.capacity - (rule.block - 1) - state.recent;
  c.ring_next = state.ring_next;
  return c;
}

struct HeadPlan {
  SelectHead select{};
  CompactHead compact{};  // without memory
  HeadState after{};
};

// rated: by_prompt of the division counts.
inline HeadPlan plan_head(const HeadState& before, const Division& d, const StepRule& rule,
                          bool rated) noexcept {
  HeadPlan plan{{}, move_head(before, rule), before};
  HeadState& s = plan.after;
  s.capacity = device_count(d.capacity);
  s.sinks = device_count(d.sinks);
  s.residual = device_count(d.residual);
  s.recent = device_count(d.recent);
  s.residuals = std::min(s.residuals, s.residual);
  s.ring = s.ring_next = 0;
  if (s.size <= s.capacity) return plan;
  s.rated = s.held_sum = 0;  // nothing that a device rates lasts
  CompactHead& c = plan.compact;
  c.front = s.sinks + s.residuals;
  c.last = s.size - s.recent;
  c.kept = device_count(d.context());
  c.leavers = c.last - c.front - c.kept;
  c.groups = std::min(s.residual, c.leavers);
  c.fresh = std::min(s.residual - s.residuals, c.groups);
  c.sinks = s.sinks;
  c.residual = s.residual;
  plan.select = {c.front, c.last, c.kept, 0};
  if (rated) {
    plan.select.by_rating = device_count(d.by_prompt);
    plan.select.by_score = c.kept - plan.select.by_rating;
  }
  s.residuals += c.fresh;
  s.size = c.size = c.front + c.fresh + c.kept + s.recent;
  return plan;
}

}  // namespace zeromerge::cuda
