// Who leaves: at the end of a prompt (compress) and for decoded tokens (evict).
//
// Slots of a head: sinks | residual | rated | context | recent. Rated entries were chosen by a score of whole
// prompts that lasts; they do not compete in decode, except as Areas::hold lets them go, from the last slot
// on: the least rated, of several prompts the newest's first. While a head grows, slots follow the order of
// arrival. Once it is full the recent area is a ring: the oldest takes the place of the entry that leaves,
// the new token takes the oldest's place.
//
// As the reference does it (Areas::as_reference), otherwise as the second half of each line says:
//  - the ring has one place fewer than the recent area, so the oldest recent token of a prompt is a
//    candidate; the ring has all;
//  - a prompt that fits marks no residual entries and its first tokens become them; they are made from the
//    first leavers;
//  - the leaver of the ring never competes; it does;
//  - context is stored by falling score; in the order of arrival.
#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

#include "zeromerge/cache/policy.hpp"
#include "zeromerge/storage/head.hpp"

namespace zeromerge {

// What a head got when the prompt ended, and all heads on average.
struct PromptCapacity {
  std::size_t capacity = kUnlimited;
  std::size_t mean = 0;  // 0: capacities stay
};

// The state of a head's areas; the entries themselves lie in the Head.
struct HeadState {
  Division division;
  PromptCapacity at_end;      // which the division grows in proportion to, see cache/growth.hpp
  std::size_t residuals = 0;  // merged entries that exist, behind the sinks
  std::size_t rated = 0;      // behind these: chosen by a score of whole prompts that lasts, best first
  std::size_t held_sum = 0;   // of `rated` over the tokens since one of them was let go
  std::size_t ring_next = 0;  // the ring's oldest place
  bool ring = false;  // the ring has turned: slots of the recent area are no longer in order of arrival

  std::size_t ring_places(bool as_reference) const noexcept {
    return division.recent - (as_reference ? 1 : 0);
  }
};

// Room for the entries of `tokens` more, when the head's division may have grown to `grown`, and, while it is
// below its capacity, for a spare slot; in steps, so that few tokens allocate. Throws std::bad_alloc with
// nothing changed that matters.
template <class H>
void reserve_for_decode(H& head, const HeadState& state, const Division& grown, std::size_t tokens) {
  const std::size_t capacity = grown.capacity;
  // A head that grows is given room a tile at a time.
  const std::size_t most = capacity == kUnlimited ? kUnlimited
                           : grown.mean != 0      ? kernels::round_up(capacity + 1, kernels::kTile)
                                                  : capacity + 1;
  const LooseRows loose[] = {loose_rows(state.division), loose_rows(grown)};
  const std::size_t wanted = std::min(head.size() + tokens + 1, most);
  // Rows wait for their group until the head is full; from then on only those that never join one do, once
  // none that has joined one can be taken back.
  const auto tight = [&] {
    return !head.log().holds(UndoLog::Kind::keys_packed, UndoLog::Kind::values_packed);
  };
  const bool spares = head.packs_late() && head.size() == capacity && head.spares(most, loose) && tight();
  const std::size_t spare = std::clamp<std::size_t>(head.size() / 8, 16, 512);
  if (head.capacity() < wanted || spares)
    head.make_room(std::min(wanted + spare, most), loose, tight());
  else if (head.packs_late() && head.lacks(loose))
    head.make_room(head.capacity(), loose, tight());
}

namespace detail {

// What an entry is worth by the running score, after `tokens` of the sequence.
template <class P, class H>
float importance_of(const P& policy, const H& head, std::size_t slot, std::size_t tokens) noexcept {
  const float score = head.fields().score ? head.score()[slot] : 0.0f;
  return policy.score.importance(score, tokens - head.position()[slot]);
}

// Slots of [first, last): the most important by the running score, then `by_prompt` of the others by
// `ratings` [entries], in this order and `keep` in all. No ratings: all by the running score. Ties go to the
// lower slot.
template <class P, class H>
std::vector<std::size_t> best_slots(const P& policy, const H& head, std::size_t first, std::size_t last,
                                    std::size_t keep, std::size_t by_prompt, std::size_t tokens,
                                    std::span<const float> ratings) {
  std::vector<std::size_t> slots(last - first);
  std::iota(slots.begin(), slots.end(), first);
  const auto sort_from = [&](std::size_t from, const auto& value) {
    std::stable_sort(slots.begin() + static_cast<std::ptrdiff_t>(from), slots.end(),
                     [&](std::size_t a, std::size_t b) { return value(a) > value(b); });
  };
  const std::size_t by_score = ratings.empty() ? keep : keep - by_prompt;
  if (by_score != 0) {
    std::vector<float> value(last - first);
    for (std::size_t j = first; j < last; ++j) value[j - first] = importance_of(policy, head, j, tokens);
    sort_from(0, [&](std::size_t j) { return value[j - first]; });
  }
  if (by_score < keep) {
    std::sort(slots.begin() + static_cast<std::ptrdiff_t>(by_score), slots.end());
    sort_from(by_score, [&](std::size_t j) { return ratings[j]; });
  }
  slots.resize(keep);
  return slots;
}

// At most `count` groups of leavers, each of which becomes, or joins, one merged entry.
template <class M, class H>
std::vector<std::vector<std::size_t>> merge_groups(const M& merge, const H& head,
                                                   std::span<const std::size_t> leavers, std::size_t count) {
  if (count == 0) return {};
  if constexpr (requires { merge.groups(head, leavers, count); })
    return merge.groups(head, leavers, count);
  else
    return contiguous_groups(leavers, count);
}

}  // namespace detail

// Writes the compressed form of `head` (slots in order of arrival, size above the division's capacity) into
// `target`, an empty head with room for capacity + 1. `tokens`: how many the sequence has seen. `ratings`: of
// every entry by the score of whole prompts, or empty.
template <class P, class M, class H>
void compress(const P& policy, const M& merge, const H& head, HeadState& state, H& target, std::size_t tokens,
              std::span<const float> ratings) {
  const Division& d = state.division;
  const std::size_t first = d.sinks + state.residuals;
  const std::size_t last = head.size() - d.recent;
  const bool stays = policy.rates_prompts() && lasts(policy.prompt_score);
  const std::size_t rated = stays ? std::min(state.rated, d.by_prompt) : 0;
  auto context = detail::best_slots(policy, head, first + rated, last, d.context() - rated,
                                    d.by_prompt - rated, tokens, ratings);
  std::vector<std::size_t> chosen(rated);  // by the score of whole prompts, now or before
  std::iota(chosen.begin(), chosen.end(), first);
  if (stays && !ratings.empty()) {
    const auto from = context.end() - static_cast<std::ptrdiff_t>(d.by_prompt - rated);
    chosen.insert(chosen.end(), from, context.end());
    context.erase(from, context.end());
    // As best_slots leaves them: by falling rating, so that those to be let go first come last.
  }
  if (!policy.areas.as_reference) std::sort(context.begin(), context.end());
  std::vector<char> kept(head.size(), 0);
  for (const auto* slots : {&chosen, &context})
    for (const std::size_t slot : *slots) kept[slot] = 1;

  std::size_t to = 0;
  for (; to < first; ++to) target.copy(head, to, to);
  target.set_size(first);
  std::vector<std::size_t> leavers;
  for (std::size_t slot = first; slot < last; ++slot)
    if (!kept[slot]) leavers.push_back(slot);
  // Residual entries that do not exist yet are served first.
  const auto groups = detail::merge_groups(merge, head, std::span<const std::size_t>(leavers), d.residual);
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const std::size_t slot = d.sinks + (state.residuals + g) % d.residual;
    merge.fold_group(head, groups[g], target, slot, policy.score);
    target.set_size(std::max(target.size(), slot + 1));
  }
  to = target.size();
  state.residuals = to - d.sinks;
  state.rated = chosen.size();
  state.held_sum = 0;
  for (const auto* slots : {&chosen, &context})
    for (const std::size_t slot : *slots) target.copy(head, slot, to++);
  for (std::size_t slot = last; slot < head.size(); ++slot) target.copy(head, slot, to++);
  target.set_size(to);
  if constexpr (requires { merge.absorb(head, std::span<const std::size_t>(leavers), target); })
    merge.absorb(head, std::span<const std::size_t>(leavers), target);
  state.ring = false;
  state.ring_next = 0;
}

template <class P, class H>
void compress(const P& policy, const H& head, HeadState& state, H& target, std::size_t tokens,
              std::span<const float> ratings = {}) {
  compress(policy, policy.merge, head, state, target, tokens, ratings);
}

namespace detail {

// Lets a score of whole prompts that can be asked again rate a head's entries, in place of the running score.
// False: there is none.
template <class P, class H>
bool rate_again(const P& policy, H& head) noexcept {
  if constexpr (requires { policy.prompt_score.rate_head(head, std::span<float>{}); })
    if (policy.rates_prompts() && policy.prompt_score.rates_in_decode() && head.fields().score) {
      policy.prompt_score.rate_head(head, std::span<float>(head.score(), head.size()));
      return true;
    }
  return false;
}

// The least important of slots [first, last); ties go to the lower slot. `rated`: the scores are ratings and
// say themselves who is worth more.
template <class P, class H>
std::size_t least_important(const P& policy, const H& head, std::size_t first, std::size_t last,
                            std::size_t tokens, bool rated = false) noexcept {
  if (rated) return first + kernels::least(head.score() + first, last - first);
  if constexpr (requires { policy.score.is_importance(); })
    if (policy.score.is_importance()) return first + kernels::least(head.score() + first, last - first);
  // Few have a score so low that their age decides: most are passed over without a division.
  const float* score = nullptr;
  if constexpr (requires { policy.score.highest_score(0.0f, tokens); })
    if (head.fields().score) score = head.score();
  const auto highest = [&](float importance) {
    if constexpr (requires { policy.score.highest_score(importance, tokens); })
      return policy.score.highest_score(importance, tokens);
    return std::numeric_limits<float>::max();
  };
  std::size_t victim = score == nullptr ? first : first + kernels::least(score + first, last - first);
  float least = importance_of(policy, head, victim, tokens);
  float bound = highest(least);
  for (std::size_t j = first; j < last; ++j) {
    if (score != nullptr && score[j] > bound) continue;
    const float value = importance_of(policy, head, j, tokens);
    if (value > least || (value == least && j >= victim)) continue;
    least = value;
    victim = j;
    bound = highest(least);
  }
  return victim;
}

// The least important entries become the residual entries, where they stand in the order of slots, before
// their places are needed: a head that is full has them all.
template <class P, class H>
void found_residuals(const P& policy, H& head, HeadState& state, std::size_t tokens) noexcept {
  const Division& d = state.division;
  while (state.residuals < d.residual && head.size() + d.residual - state.residuals > d.capacity) {
    const std::size_t next = d.sinks + state.residuals;
    head.exchange(least_important(policy, head, next, head.size() - d.recent, tokens), next);
    ++state.residuals;
  }
}

// The number of rated entries falls by half in Areas::hold tokens, the least rated first: one joins those
// that compete whenever what they were, token by token, adds up to hold / ln 2.
inline void let_go(const Areas& areas, HeadState& state) noexcept {
  if (areas.hold == 0 || state.rated == 0) return;
  const std::size_t each = areas.hold_sum();
  state.held_sum += state.rated * areas.block;
  for (; state.held_sum >= each && state.rated != 0; state.held_sum -= each) --state.rated;
}

}  // namespace detail

// Brings a head that has just taken a token and is above its capacity to what Areas::block says: the newest
// tokens enter the ring one after another, and for each the least important entry leaves. `tokens`: seen, the
// newest included.
template <class P, class H>
void evict(const P& policy, H& head, HeadState& state, std::size_t tokens) noexcept {
  const Division& d = state.division;
  const bool reference = policy.areas.as_reference;
  if (d.capacity == kUnlimited) return;
  if (!reference) detail::found_residuals(policy, head, state, tokens);
  if (head.size() <= d.capacity) return;
  if (reference) state.residuals = d.residual;
  const bool rated = detail::rate_again(policy, head);
  const auto worth = [&](std::size_t slot) {
    return rated ? head.score()[slot] : detail::importance_of(policy, head, slot, tokens);
  };
  const std::size_t first = d.sinks + state.residuals + state.rated;
  const std::size_t newest = head.size() - policy.areas.block;  // the first of the new ones
  const std::size_t places = state.ring_places(reference);
  const std::size_t ring = newest - places;
  for (std::size_t i = 0; i < policy.areas.block; ++i) {
    const std::size_t oldest = ring + state.ring_next;
    std::size_t victim = oldest;
    if (first < ring) victim = detail::least_important(policy, head, first, ring, tokens, rated);
    if (!reference && worth(oldest) < worth(victim)) victim = oldest;
    if (state.residuals != 0) policy.merge.fold(head, victim, d.sinks, state.residuals, policy.score);
    head.move(oldest, victim);
    head.move_over(newest + i, oldest, victim);
    if (i + 1 < policy.areas.block) head.keep(newest + i, oldest);
    state.ring_next = (state.ring_next + 1) % places;
  }
  head.cut(newest);
  state.ring = true;
  detail::let_go(policy.areas, state);
}

// Puts a turned ring back into the order of arrival, so that a new prompt can follow. Behind the ring the
// tokens of a block may wait, which are in order.
template <class P, class H>
void straighten(const P& policy, H& head, HeadState& state) {
  if (!state.ring) return;
  const std::size_t places = state.ring_places(policy.areas.as_reference);
  const std::size_t first = state.division.capacity - state.division.slack - places;
  H copy = head.sibling();
  copy.reserve(places);
  for (std::size_t i = 0; i < places; ++i) copy.copy(head, first + (state.ring_next + i) % places, i);
  for (std::size_t i = 0; i < places; ++i) head.copy(copy, i, first + i);
  state.ring = false;
  state.ring_next = 0;
}

}  // namespace zeromerge
