// Who stays at the end of a prompt: of the slots [first, last) of each head the most important ones, then, of
// the others, those that a second rating puts highest. Ties go to the lower slot.
//
// One block a head. The k-th largest value is found by its bits, eight at a time from the highest: count how
// many values that share the bits found so far have each next byte, then step down from the largest. Values
// never move, so the order of slots is the order of arrival for nothing. Cost: 5 passes over the values a
// choice, 2 more to write the lists.
#pragma once

#include "zeromerge/kernels/cuda/score.hpp"

namespace zeromerge::cuda {

// What one head is asked.
struct SelectHead {
  std::uint32_t first, last;  // slots that compete
  std::uint32_t by_score;     // so many by importance,
  std::uint32_t by_rating;    // then so many by rating
};

struct SelectArguments {
  const HeadRows* rows;     // [heads]
  const HeadState* states;  // [heads]
  const SelectHead* heads;  // [heads]
  const float* ratings;     // [heads][stride] of slots, or null
  std::uint32_t* chosen;    // [heads][stride] scratch, by slot
  std::uint32_t* order;     // [heads][stride] slots that were chosen, then the leavers; each rising
  StepRule rule;
  std::uint32_t stride;
  std::uint32_t count;  // heads
};

inline constexpr unsigned kSelectThreads = 256;
inline constexpr unsigned kSelectBins = 256;
inline constexpr std::size_t kSelectSharedBytes = 4 * (kSelectBins + kWarp + 4);

namespace detail {

// Numbers in the order of the values.
ZEROMERGE_DEVICE std::uint32_t ordered_bits(float x) {
  const std::uint32_t bits = bits_of<std::uint32_t>(x == 0.0f ? 0.0f : x);  // -0 equals 0
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

struct SelectBlock {
  HeadRows head;
  StepRule rule;
  SelectHead ask;
  unsigned tokens;
  GlobalSpan<const float> rating;    // by slot, or empty
  GlobalSpan<std::uint32_t> chosen;  // by slot: 0 not yet, 1 by importance, 2 by rating
  GlobalSpan<std::uint32_t> order;
  SharedSpan<std::uint32_t> bins;    // [kSelectBins]
  SharedSpan<std::uint32_t> totals;  // [kWarp]
  SharedSpan<std::uint32_t> found;   // [2] bits so far, how many are still to be taken

  ZEROMERGE_DEVICE std::uint32_t value(unsigned slot, unsigned round) const {
    return ordered_bits(round == 1 ? importance_at(head, rule, tokens, slot) : rating.at(slot));
  }

  // How many threads before this one say yes; the block's total is added to `base`.
  ZEROMERGE_DEVICE unsigned rank(bool yes, unsigned& base) const {
    const std::uint32_t votes = ballot(kAllLanes, yes);
    if (lane_index() == 0) totals[warp_index()] = count_bits(votes);
    sync_block();
    unsigned before = base + count_bits(votes & ((1u << lane_index()) - 1u));
    unsigned all = 0;
    for (unsigned w = 0; w < block_warps(); ++w) {
      const std::uint32_t n = totals[w];
      if (w < warp_index()) before += n;
      all += n;
    }
    sync_block();
    base += all;
    return before;
  }

  // Leaves in `found` the value of the k-th largest of those not chosen yet, and how many of its equals to
  // take.
  ZEROMERGE_DEVICE void find(unsigned k, unsigned round) const {
    if (thread_index() == 0) {
      found[0] = 0;
      found[1] = k;
    }
    for (unsigned shift = 32; shift > 0;) {
      shift -= 8;
      for (unsigned i = thread_index(); i < kSelectBins; i += kSelectThreads) bins[i] = 0;
      sync_block();
      const std::uint32_t high = found[0];
      for (unsigned slot = ask.first + thread_index(); slot < ask.last; slot += kSelectThreads) {
        if (chosen.at(slot) != 0) continue;
        const std::uint32_t bits = value(slot, round);
        if (shift == 24 || (bits ^ high) >> (shift + 8) == 0)
          atomic_add(bins, (bits >> shift) & 0xffu, std::uint32_t{1});
      }
      sync_block();
      if (thread_index() == 0) step_down(shift);
      sync_block();
    }
  }
  ZEROMERGE_DEVICE void step_down(unsigned shift) const {
    std::uint32_t left = found[1];
    unsigned bin = kSelectBins - 1;
    for (; bin > 0; --bin) {
      const std::uint32_t n = bins[bin];
      if (left <= n) break;
      left -= n;
    }
    found[1] = left;
    found[0] |= static_cast<std::uint32_t>(bin) << shift;
  }

  ZEROMERGE_DEVICE void choose(unsigned k, unsigned round) const {
    if (k == 0) return;
    find(k, round);
    const std::uint32_t least = found[0];
    const std::uint32_t equals = found[1];
    unsigned base = 0;
    for (unsigned begin = ask.first; begin < ask.last; begin += kSelectThreads) {
      const unsigned slot = begin + thread_index();
      const bool free = slot < ask.last && chosen.at(slot) == 0;
      const std::uint32_t bits = free ? value(slot, round) : 0;
      const bool equal = free && bits == least;
      const unsigned before = rank(equal, base);
      if (free && (bits > least || (equal && before < equals))) chosen[slot] = round;
    }
    sync_block();
  }

  // Slots that were chosen, or were not, rising, from place `at` on; returns the place behind them.
  ZEROMERGE_DEVICE unsigned list(bool taken, unsigned at) const {
    for (unsigned begin = ask.first; begin < ask.last; begin += kSelectThreads) {
      const unsigned slot = begin + thread_index();
      const bool mine = slot < ask.last && (chosen.at(slot) != 0) == taken;
      const unsigned place = rank(mine, at);
      if (mine) order[place] = slot;
    }
    return at;
  }
};

}  // namespace detail

// grid (heads). A template so that several files may include it.
template <unsigned kThreads>
ZEROMERGE_KERNEL(kThreads)
select_slots(SelectArguments a) {
  const unsigned h = block_x();
  SharedMemory shared;
  const auto bins = shared.take<std::uint32_t>(kSelectBins);
  const auto totals = shared.take<std::uint32_t>(kWarp);
  const auto found = shared.take<std::uint32_t>(4);
  const std::size_t row = std::size_t{h} * a.stride;
  GlobalSpan<const float> rating;
  if (a.ratings != nullptr) rating = {a.ratings + row, a.stride};
  const HeadState state = GlobalSpan<const HeadState>(a.states, a.count)[h];
  const detail::SelectBlock worker = {GlobalSpan<const HeadRows>(a.rows, a.count)[h],
                                      a.rule,
                                      GlobalSpan<const SelectHead>(a.heads, a.count)[h],
                                      state.tokens,
                                      rating,
                                      {a.chosen + row, a.stride},
                                      {a.order + row, a.stride},
                                      bins,
                                      totals,
                                      found};
  const SelectHead ask = worker.ask;
  for (unsigned slot = ask.first + thread_index(); slot < ask.last; slot += kSelectThreads)
    worker.chosen[slot] = 0;
  sync_block();
  worker.choose(ask.by_score, 1);
  worker.choose(ask.by_rating, 2);
  worker.list(false, worker.list(true, 0));
}

}  // namespace zeromerge::cuda
