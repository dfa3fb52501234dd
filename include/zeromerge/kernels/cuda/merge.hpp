// The end of a decode step, one block a head: who leaves, into which merged entry it is folded, and how the
// ring turns (cache/evict.hpp, merge/merges.hpp):
//   k_j, v_j <- (w_i k_i + w_j k_j) / (w_i + w_j)      w_j <- w_i + w_j      bias_j <- alpha ln w_j
// Everything happens in place: rows that move are copied whole, by one warp each. Cost: a few rows a head,
// and the search where the scores have not been searched yet.
#pragma once

#include "zeromerge/kernels/cuda/score.hpp"

namespace zeromerge::cuda {

struct EvictArguments {
  BatchHeads heads;
  StepRule rule;
  const float* least_value;    // [batch][kv_heads][blocks] as score.hpp leaves it; unused where blocks is 0
  const unsigned* least_slot;  // likewise
  unsigned blocks;
  unsigned batch;
};

namespace detail {

// A head in the hands of a block: warp 0 has the keys, warp 1 the values, the first thread of warp 2 what
// lies beside them. Each function ends with a barrier, so that they can follow one another.
template <class K, class V>
struct HeadBlock {
  HeadRows head;
  StoredRows<K> keys;
  StoredRows<V> values;
  StepRule rule;
  SharedSpan<float> least_values;    // [kWarp]
  SharedSpan<unsigned> least_slots;  // [kWarp]

  // Calls f with the keys in warp 0 and with the values in warp 1; once in the code where they are of one
  // type.
  template <class F>
  ZEROMERGE_DEVICE void with_rows(const F& f) const {
    if constexpr (storage_of<K> == storage_of<V>) {
      if (warp_index() >= 2) return;
      StoredRows<K> rows = values;
      if (warp_index() == 0) rows = keys;
      f(rows);
    } else {
      if (warp_index() == 0) f(keys);
      if (warp_index() == 1) f(values);
    }
  }
  ZEROMERGE_DEVICE GlobalSpan<float> score() const { return {head.score, head.room}; }
  ZEROMERGE_DEVICE GlobalSpan<float> mass() const { return {head.mass, head.room}; }
  ZEROMERGE_DEVICE GlobalSpan<float> bias() const { return {head.bias, head.room}; }
  // What lies beside the rows, one array a lane, all of four bytes an entry; empty for other lanes and for
  // what is not kept.
  ZEROMERGE_DEVICE GlobalSpan<std::uint32_t> field() const {
    const unsigned lane = lane_index();
    void* data = head.position;
    if (lane == 1) data = head.score;
    if (lane == 2) data = head.mass;
    if (lane == 3) data = head.bias;
    if (lane == 4) data = head.key_scale;
    if (lane == 5) data = head.value_scale;
    if (lane > 5) data = nullptr;
    return {static_cast<std::uint32_t*>(data), head.room};
  }

  ZEROMERGE_DEVICE float worth(unsigned tokens, unsigned slot) const {
    if (rule.rates_keys != 0) return score().at(slot);
    return importance_at(head, rule, tokens, slot);
  }
  ZEROMERGE_DEVICE unsigned least(unsigned tokens, unsigned first, unsigned last) const {
    Least mine = {kMostImportant, kNoSlot};
    for (unsigned j = first + thread_index(); j < last; j += block_threads())
      mine = lesser(mine, {worth(tokens, j), j});
    return block_least(mine, least_values, least_slots).slot;
  }

  ZEROMERGE_DEVICE void move(unsigned from, unsigned to) const {
    if (from == to) return;
    with_rows([=](const auto& rows) { copy_row(rows, from, to); });
    if (warp_index() == 2) {
      const GlobalSpan<std::uint32_t> words = field();
      if (words) words[to] = words.at(from);
    }
    sync_block();
  }
  ZEROMERGE_DEVICE void exchange(unsigned a, unsigned b) const {
    if (a == b) return;
    with_rows([=](const auto& rows) { exchange_rows(rows, a, b); });
    if (warp_index() == 2) {
      const GlobalSpan<std::uint32_t> words = field();
      if (words) {
        const std::uint32_t word = words[a];
        words[a] = words.at(b);
        words[b] = word;
      }
    }
    sync_block();
  }

  // The best matching of the `count` merged entries from `first` on; ties go to the lower slot.
  ZEROMERGE_DEVICE unsigned match(unsigned from, unsigned first, unsigned count) const {
    const Row8 key = read_row(keys, from);
    Least best = {kMostImportant, kNoSlot};
    for (unsigned j = first + warp_index(); j < first + count; j += block_warps()) {
      const Row8 other = read_row(keys, j);
      float sum = 0.0f;
      ZEROMERGE_UNROLL_DEVICE
      for (unsigned i = 0; i < 8; ++i) {
        const float difference = key.x[i] - other.x[i];
        sum += rule.match == Match::dot ? -key.x[i] * other.x[i] : difference * difference;
      }
      best = lesser(best, {lanes_sum<kWarp>(sum), j});
    }
    return block_least(best, least_values, least_slots).slot;
  }

  template <class T>
  ZEROMERGE_DEVICE static void write_mean(const StoredRows<T>& rows, unsigned from, float from_mass,
                                          unsigned to, float to_mass) {
    Row8 mean = read_row(rows, to);
    const float both = from_mass + to_mass;
    const Row8 leaver = read_row(rows, from);
    // Divided as on the host: a number that rounds the other way in bf16 moves outputs by more than 1e-3.
    ZEROMERGE_UNROLL_DEVICE
    for (unsigned i = 0; i < 8; ++i) mean.x[i] = (to_mass * mean.x[i] + from_mass * leaver.x[i]) / both;
    sync_warp();  // every lane has the row's scale
    write_row(rows, to, mean);
  }
  ZEROMERGE_DEVICE void fold(unsigned from, unsigned first, unsigned count) const {
    const unsigned to = count == 1 ? first : match(from, first, count);
    const float from_mass = mass()[from];
    const float to_mass = mass()[to];
    with_rows([=](const auto& rows) { write_mean(rows, from, from_mass, to, to_mass); });
    sync_block();
    if (thread_index() == 2 * kWarp) {
      const float a = score()[from];
      const float b = score()[to];
      const float both = from_mass + to_mass;
      score()[to] = rule.sum_on_merge != 0 ? a + b : (a > b ? a : b);
      mass()[to] = both;
      bias()[to] = rule.alpha * kLn2 * log2_fast(both);
    }
    sync_block();
  }

  // The newest entry waiting at slot `newest` enters the ring, and `victim` or the ring's oldest leaves.
  ZEROMERGE_DEVICE void turn_ring(HeadState& state, unsigned ring, unsigned newest, unsigned victim) const {
    const unsigned oldest = ring + state.ring_next;
    if (victim == kNoSlot) victim = oldest;
    if (rule.as_reference == 0 && worth(state.tokens, oldest) < worth(state.tokens, victim)) victim = oldest;
    if (state.residuals != 0 && rule.fold == Fold::residual) fold(victim, state.sinks, state.residuals);
    sync_block();
    move(oldest, victim);
    move(newest, oldest);
    ++state.ring_next;
    if (state.ring_next == ring_places(state, rule)) state.ring_next = 0;
    state.ring = 1;
  }

  // Rated entries begin to compete, the least rated first (cache/evict.hpp).
  ZEROMERGE_DEVICE void let_go(HeadState& state) const {
    if (rule.hold == 0 || state.rated == 0) return;
    state.held_sum += state.rated * rule.block;
    for (; state.held_sum >= rule.hold && state.rated != 0; state.held_sum -= rule.hold) --state.rated;
  }

  // Before their places are needed, the least important entries become merged entries where these stand in
  // the order of slots; then one entry leaves for each of the block that waits. known: who is least the first
  // time, or kNoSlot. Returns how many entries stay.
  ZEROMERGE_DEVICE unsigned settle(HeadState& state, unsigned entries, unsigned known) const {
    const unsigned leaving = entries > state.capacity ? rule.block : 0;
    if (leaving != 0 && rule.as_reference != 0) state.residuals = state.residual;
    for (unsigned left = 0;;) {
      const bool founding = founds_residual(state, rule, entries);
      if (!founding && left == leaving) {
        if (leaving != 0) let_go(state);
        return entries - leaving;
      }
      Candidates compete = candidates(state, rule, entries);
      if (founding) compete = {state.sinks + state.residuals, entries - state.recent};
      if (known == kNoSlot) known = least(state.tokens, compete.first, compete.last);
      if (founding) {
        exchange(known, compete.first);
        ++state.residuals;
      } else {
        turn_ring(state, compete.last, entries - leaving + left, known);
        ++left;
      }
      known = kNoSlot;
    }
  }
};

// What the score's blocks have found, in every thread.
ZEROMERGE_DEVICE unsigned least_of_blocks(const EvictArguments& a, unsigned entries, SharedSpan<float> values,
                                          SharedSpan<unsigned> slots) {
  const std::size_t first = std::size_t{block_x()} * a.blocks;
  const std::size_t count = std::size_t{a.batch} * a.heads.kv_heads * a.blocks;
  Least mine = {kMostImportant, kNoSlot};
  for (unsigned b = thread_index(); b * kScoreEntries < entries; b += block_threads())
    mine = lesser(mine, {GlobalSpan<const float>(a.least_value, count).at(first + b),
                         GlobalSpan<const unsigned>(a.least_slot, count).at(first + b)});
  return block_least(mine, values, slots).slot;
}

}  // namespace detail

// grid (batch * kv_heads). The step has appended an entry that the states do not count yet.
// A head has one block: with room for 128 registers a thread, ptxas spills none, left to itself it settles
// on 64.
template <class K, class V>
ZEROMERGE_KERNEL_RESIDENT(kStepThreads, 4)
evict(EvictArguments a) {
  const HeadPlace place = head_place(a.heads, block_x(), a.batch);
  const HeadRows head = rows_at(a.heads, place.at);
  HeadState state = state_at(a.heads, place.at);
  if (!takes_one(head, state)) return;
  SharedMemory shared;
  const auto values = shared.take<float>(kWarp);
  const auto slots = shared.take<unsigned>(kWarp);
  const unsigned dim = a.heads.head_dim;
  const detail::HeadBlock<K, V> worker = {
      head, keys_of<K>(head, dim), values_of<V>(head, dim), a.rule, values, slots};
  const unsigned entries = state.size + 1;
  ++state.tokens;
  unsigned known = kNoSlot;
  if (a.blocks != 0 && entries > state.capacity && !founds_residual(state, a.rule, entries))
    known = detail::least_of_blocks(a, entries, values, slots);
  state.size = worker.settle(state, entries, known);
  sync_block();
  if (thread_index() == 0) GlobalSpan<HeadState>(a.heads.states, place.at + 1)[place.at] = state;
}
inline constexpr std::size_t kEvictSharedBytes = 2 * kWarp * 4;

}  // namespace zeromerge::cuda
