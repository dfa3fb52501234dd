// The score of every entry after a step, and who is worth least:
//   p_gj = 2^(logit_gj - M_g) / S_g        score_j <- decay * score_j + sum over g of p_gj
// A block takes kScoreEntries entries of one kv head and leaves the least of those that compete; ties go to
// the lower slot. Cost: reads a float a query head and entry, reads and writes the score.
#pragma once

#include "zeromerge/kernels/cuda/combine.hpp"

namespace zeromerge::cuda {

inline constexpr unsigned kStepThreads = 128;
inline constexpr unsigned kScoreEntries = 8 * kStepThreads;

// The least important of some slots.
struct Least {
  float value;
  unsigned slot;  // kNoSlot: there is none
};

// The slots that compete in a step that leaves a head with `entries` before eviction. Empty: nobody has to
// leave.
struct Candidates {
  unsigned first, last;
};

ZEROMERGE_DEVICE unsigned ring_places(const HeadState& state, const StepRule& rule) {
  return state.recent - (rule.as_reference != 0 ? 1 : 0);
}
// Merged entries are to be made of entries that are there, before their places are needed.
ZEROMERGE_DEVICE bool founds_residual(const HeadState& state, const StepRule& rule, unsigned entries) {
  return rule.as_reference == 0 && state.capacity != kKeepsAll && state.residuals < state.residual &&
         entries + (state.residual - state.residuals) > state.capacity;
}
ZEROMERGE_DEVICE Candidates candidates(const HeadState& state, const StepRule& rule, unsigned entries) {
  if (entries <= state.capacity) return {0, 0};
  const unsigned merged = rule.as_reference != 0 ? state.residual : state.residuals;
  return {state.sinks + merged + state.rated, entries - rule.block - ring_places(state, rule)};
}

// What an entry is worth that `queries` queries could see.
ZEROMERGE_DEVICE float importance_of(const StepRule& rule, float score, unsigned queries) {
  const float n = static_cast<float>(queries);
  if (rule.importance == Importance::score) return score;
  if (rule.importance == Importance::recency) return -n;
  if (rule.log2_decay == 0.0f) return score / n;
  // 1 - decay^n; where decay^n is near 1 by its series, for the difference would keep few digits.
  const float reach = n * rule.log2_decay * kLn2;
  float lost = 1.0f - exp2_fast(n * rule.log2_decay);
  if (reach > -0.03125f)
    lost = -reach * (1.0f + reach * (0.5f + reach * (0.16666667f + reach * 0.041666668f)));
  return score * (1.0f - rule.decay) / lost;
}
ZEROMERGE_DEVICE float importance_at(const HeadRows& head, const StepRule& rule, unsigned tokens,
                                     unsigned slot) {
  float score = 0.0f;
  if (head.score != nullptr) score = GlobalSpan<const float>(head.score, head.room)[slot];
  if (rule.importance == Importance::score) return score;
  const unsigned position = GlobalSpan<const std::uint32_t>(head.position, head.room)[slot];
  return importance_of(rule, score, tokens - position);
}

ZEROMERGE_DEVICE Least lesser(Least a, Least b) {
  const bool other = b.value < a.value || (b.value == a.value && b.slot < a.slot);
  return other ? b : a;
}
inline constexpr float kMostImportant = 3.4028234e38f;

ZEROMERGE_DEVICE Least warp_least(Least mine) {
  ZEROMERGE_UNROLL_DEVICE
  for (unsigned bits = kWarp / 2; bits != 0; bits /= 2)
    mine = lesser(mine, {shuffle_xor(kAllLanes, mine.value, bits), shuffle_xor(kAllLanes, mine.slot, bits)});
  return mine;
}
// The least of all threads' in every thread. values, slots: for each warp. Ends with a barrier.
ZEROMERGE_DEVICE Least block_least(Least mine, SharedSpan<float> values, SharedSpan<unsigned> slots) {
  mine = warp_least(mine);
  if (lane_index() == 0) {
    values[warp_index()] = mine.value;
    slots[warp_index()] = mine.slot;
  }
  sync_block();
  Least of_warp = {kMostImportant, kNoSlot};
  if (lane_index() < block_warps()) of_warp = {values.at(lane_index()), slots.at(lane_index())};
  sync_block();
  return warp_least(of_warp);
}

struct ScoreArguments {
  StepRule rule;
  float* least_value;    // [batch][kv_heads][score blocks]
  unsigned* least_slot;  // likewise
  unsigned blocks;       // score blocks of a head, at least entries / kScoreEntries; 0: no scores are kept
};

// Entries [block * kScoreEntries, ...) of the kv head at `index`. Shared memory: 2 * group floats, and what
// block_least takes.
ZEROMERGE_DEVICE void score_block(const BatchHeads& heads, const Partials& partials, const float* sinks,
                                  const ScoreArguments& a, const HeadRows& head, const HeadState& state,
                                  unsigned index, unsigned total, unsigned block, unsigned entries,
                                  SharedMemory shared) {
  const auto maximum = shared.take<float>(heads.group);
  const auto inverse = shared.take<float>(heads.group);
  const auto values = shared.take<float>(kWarp);
  const auto slots = shared.take<unsigned>(kWarp);
  for (unsigned g = warp_index(); g < heads.group; g += block_warps()) {
    const Softmax softmax = softmax_of(heads, partials, sinks, index, total, g, splits_of(partials, entries));
    if (lane_index() != 0) continue;
    maximum[g] = softmax.maximum;
    inverse[g] = 1.0f / softmax.sum;
  }
  sync_block();
  const GlobalSpan<const float> logits(partials.logits + std::size_t{index} * heads.group * partials.stride,
                                       std::size_t{heads.group} * partials.stride);
  const GlobalSpan<float> score(head.score, head.room);
  const Candidates compete = candidates(state, a.rule, entries);
  const unsigned begin = block * kScoreEntries;
  const unsigned end = entries - begin < kScoreEntries ? entries : begin + kScoreEntries;
  Least least = {kMostImportant, kNoSlot};
  for (unsigned j = begin + thread_index(); j < end; j += block_threads()) {
    float s = score.at(j) * a.rule.decay;
    for (unsigned g = 0; g < heads.group; ++g)
      s += exp2_fast(logits.at(std::size_t{g} * partials.stride + j) - maximum.at(g)) * inverse.at(g);
    score[j] = s;
    if (j < compete.first || j >= compete.last) continue;
    least = lesser(least, {importance_at(head, a.rule, state.tokens + 1, j), j});
  }
  least = block_least(least, values, slots);
  if (thread_index() != 0) return;
  const std::size_t count = std::size_t{total} * a.blocks;
  GlobalSpan<float>(a.least_value, count)[std::size_t{index} * a.blocks + block] = least.value;
  GlobalSpan<unsigned>(a.least_slot, count)[std::size_t{index} * a.blocks + block] = least.slot;
}

struct CombineScoreArguments {
  BatchHeads heads;
  Partials partials;
  CombineArguments to;
  ScoreArguments score;
  unsigned batch;
  unsigned appended;  // 1: the step has added an entry that the states do not count yet
};

// grid (group + score blocks, batch * kv_heads): the first blocks write the outputs, one a query head, the
// others the scores. Both need the softmax of all splits, and neither the other.
template <unsigned kThreads>  // a template so that several files may include it
ZEROMERGE_KERNEL(kThreads) combine_and_score(CombineScoreArguments a) {
  const HeadPlace place = head_place(a.heads, block_y(), a.batch);
  const HeadRows head = rows_at(a.heads, place.at);
  const HeadState state = state_at(a.heads, place.at);
  const unsigned entries = state.size + (takes_one(head, state) ? a.appended : 0);
  const unsigned total = a.batch * a.heads.kv_heads;
  if (block_x() < a.heads.group)
    return combine_head(a.heads, a.partials, a.to, block_y(), total, block_x(), entries);
  const unsigned block = block_x() - a.heads.group;
  if (block * kScoreEntries >= entries) return;
  score_block(a.heads, a.partials, a.to.sinks, a.score, head, state, block_y(), total, block, entries,
              SharedMemory());
}
ZEROMERGE_HOST_DEVICE std::size_t combine_shared_bytes(unsigned group) {
  return 2 * ((std::size_t{group} * 4 + 15) / 16 * 16) + 2 * kWarp * 4;
}

}  // namespace zeromerge::cuda
