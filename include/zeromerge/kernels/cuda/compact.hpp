// The compressed form of a head, written to other memory at the end of a prompt: what is at the front, merged
// entries, what was chosen, the last tokens. The same kernels move a head as it is to a larger place, a
// turned ring in the order of arrival.
//   gather_slots   a warp an entry, bit for bit                     grid (blocks of entries, heads)
//   fold_leavers   a block a merged entry: means weighted by mass   grid (merged entries, heads)
//     k = sum w_i k_i / sum w_i, v alike, w = sum w_i, bias = alpha ln w; the oldest position
// Cost: each row that stays is read and written once, each leaver's read once.
#pragma once

#include "zeromerge/kernels/cuda/score.hpp"

namespace zeromerge::cuda {

// How one head is rewritten. Slots of `to`: [0, front) stay, then up to front + fresh merged entries that are
// new, then the first `kept` of the head's list, then the slots of `from` from `last` on.
struct CompactHead {
  HeadRows from, to;
  std::uint32_t front;  // sinks and merged entries that exist
  std::uint32_t fresh;
  std::uint32_t kept;
  std::uint32_t last;
  std::uint32_t size;  // of `to`
  std::uint32_t sinks;
  std::uint32_t residual;   // places for merged entries
  std::uint32_t groups;     // that leavers form
  std::uint32_t leavers;    // behind the kept ones in the list
  std::uint32_t ring;       // first place of a turned ring in `from`,
  std::uint32_t places;     // its places; 0: it has not turned
  std::uint32_t ring_next;  // and its oldest one
};

struct CompactArguments {
  const CompactHead* heads;    // [count]
  const std::uint32_t* order;  // [count][stride] of select.hpp
  std::uint32_t stride;
  std::uint32_t count;
  std::uint32_t head_dim;
  float alpha;
  std::uint32_t sum_on_merge;
};

inline constexpr unsigned kCompactThreads = 256;
inline constexpr unsigned kCompactWarps = kCompactThreads / kWarp;
inline constexpr std::size_t kFoldSharedBytes = 4 * (2 * kCompactWarps * kMostHeadDim + 4 * kCompactWarps);

namespace detail {

ZEROMERGE_DEVICE unsigned in_order_of_arrival(const CompactHead& h, unsigned slot) {
  if (slot < h.ring || slot >= h.ring + h.places) return slot;
  return h.ring + (slot - h.ring + h.ring_next) % h.places;
}

template <class T>
ZEROMERGE_DEVICE void copy_between(const StoredRows<T>& from, unsigned slot, const StoredRows<T>& to,
                                   unsigned at) {
  const unsigned lane = lane_index();
  if (lane < from.chunks)
    store16(to.bytes, to.begin(at) + 16 * lane, load16(from.bytes, from.begin(slot) + 16 * lane));
  if constexpr (has_scale<T>)
    if (lane == 0) to.scale[at] = from.scale.at(slot);
}
ZEROMERGE_DEVICE void copy_field(const float* from, unsigned from_room, unsigned slot, float* to,
                                 unsigned to_room, unsigned at) {
  if (from != nullptr) GlobalSpan<float>(to, to_room)[at] = GlobalSpan<const float>(from, from_room).at(slot);
}

// One thread copies what belongs to an entry beside its rows.
ZEROMERGE_DEVICE void copy_fields(const HeadRows& from, unsigned slot, const HeadRows& to, unsigned at) {
  GlobalSpan<std::uint32_t>(to.position, to.room)[at] =
      GlobalSpan<const std::uint32_t>(from.position, from.room).at(slot);
  copy_field(from.score, from.room, slot, to.score, to.room, at);
  copy_field(from.mass, from.room, slot, to.mass, to.room, at);
  copy_field(from.bias, from.room, slot, to.bias, to.room, at);
}

}  // namespace detail

template <class K, class V>
ZEROMERGE_KERNEL(kCompactThreads)
gather_slots(CompactArguments a) {
  const CompactHead h = GlobalSpan<const CompactHead>(a.heads, a.count)[block_y()];
  const unsigned at = block_x() * kCompactWarps + warp_index();
  if (at >= h.size) return;
  unsigned slot = at;
  if (at >= h.front) {
    if (at < h.front + h.fresh) return;  // fold_leavers writes it
    const unsigned i = at - h.front - h.fresh;
    slot = h.last + (i - h.kept);
    if (i < h.kept)
      slot = GlobalSpan<const std::uint32_t>(a.order, std::size_t{a.count} * a.stride)
                 .at(std::size_t{block_y()} * a.stride + i);
  }
  slot = detail::in_order_of_arrival(h, slot);
  detail::copy_between(keys_of<K>(h.from, a.head_dim), slot, keys_of<K>(h.to, a.head_dim), at);
  detail::copy_between(values_of<V>(h.from, a.head_dim), slot, values_of<V>(h.to, a.head_dim), at);
  if (lane_index() == 0) detail::copy_fields(h.from, slot, h.to, at);
}

namespace detail {

// What a warp has added up.
struct FoldSum {
  Row8 key, value;
  float mass, score;
  std::uint32_t position;

  template <class K, class V>
  ZEROMERGE_DEVICE void add(const HeadRows& head, unsigned head_dim, unsigned slot, bool sum_scores) {
    const float w = GlobalSpan<const float>(head.mass, head.room)[slot];
    const float s = GlobalSpan<const float>(head.score, head.room)[slot];
    const std::uint32_t p = GlobalSpan<const std::uint32_t>(head.position, head.room)[slot];
    const Row8 k = read_row(keys_of<K>(head, head_dim), slot);
    const Row8 v = read_row(values_of<V>(head, head_dim), slot);
    ZEROMERGE_UNROLL_DEVICE
    for (unsigned i = 0; i < 8; ++i) {
      key.x[i] += w * k.x[i];
      value.x[i] += w * v.x[i];
    }
    score = mass == 0.0f ? s : sum_scores ? score + s : score < s ? s : score;
    mass += w;
    position = position < p ? position : p;
  }
};

// The warps' sums, for one warp to end.
struct FoldShared {
  SharedSpan<float> key, value;   // [warps][kMostHeadDim]
  SharedSpan<float> mass, score;  // [warps]
  SharedSpan<std::uint32_t> position;

  ZEROMERGE_DEVICE void leave(const FoldSum& sum) const {
    const unsigned at = warp_index() * kMostHeadDim + 8 * lane_index();
    ZEROMERGE_UNROLL_DEVICE
    for (unsigned i = 0; i < 8; ++i) {
      key[at + i] = sum.key.x[i];
      value[at + i] = sum.value.x[i];
    }
    if (lane_index() != 0) return;
    mass[warp_index()] = sum.mass;
    score[warp_index()] = sum.score;
    position[warp_index()] = sum.position;
  }
  ZEROMERGE_DEVICE float total_mass() const {
    float total = 0.0f;
    for (unsigned w = 0; w < kCompactWarps; ++w) total += mass.at(w);
    return total;
  }
  ZEROMERGE_DEVICE Row8 mean(SharedSpan<float> rows, float total) const {
    Row8 row = {};
    for (unsigned w = 0; w < kCompactWarps; ++w) ZEROMERGE_UNROLL_DEVICE
    for (unsigned i = 0; i < 8; ++i) row.x[i] += rows.at(w * kMostHeadDim + 8 * lane_index() + i);
    ZEROMERGE_UNROLL_DEVICE
    for (float& x : row.x) x /= total;
    return row;
  }
  ZEROMERGE_DEVICE void write_fields(const HeadRows& to, unsigned at, float total, float alpha,
                                     bool sum_scores) const {
    float s = 0.0f;
    std::uint32_t oldest = 0xffffffffu;
    for (unsigned w = 0; w < kCompactWarps; ++w) {
      if (mass.at(w) == 0.0f) continue;
      s = sum_scores ? s + score.at(w) : s < score.at(w) ? score.at(w) : s;
      oldest = oldest < position.at(w) ? oldest : position.at(w);
    }
    GlobalSpan<float>(to.mass, to.room)[at] = total;
    GlobalSpan<float>(to.bias, to.room)[at] = alpha * kLn2 * log2_fast(total);
    GlobalSpan<float>(to.score, to.room)[at] = s;
    GlobalSpan<std::uint32_t>(to.position, to.room)[at] = oldest;
  }
};

}  // namespace detail

// After gather_slots, whose entries at the front are read where they came from.
template <class K, class V>
ZEROMERGE_KERNEL_RESIDENT(kCompactThreads, 2)
fold_leavers(CompactArguments a) {
  const CompactHead h = GlobalSpan<const CompactHead>(a.heads, a.count)[block_y()];
  const unsigned g = block_x();
  if (g >= h.groups) return;
  SharedMemory shared;
  const auto key = shared.take<float>(kCompactWarps * kMostHeadDim);
  const auto value = shared.take<float>(kCompactWarps * kMostHeadDim);
  const auto mass = shared.take<float>(kCompactWarps);
  const auto score = shared.take<float>(kCompactWarps);
  const auto position = shared.take<std::uint32_t>(kCompactWarps);
  const detail::FoldShared all = {key, value, mass, score, position};

  // Neighbours in the order of arrival; the first (leavers mod groups) groups are one longer. Groups go to
  // merged entries that do not exist yet first.
  const unsigned longer = h.leavers % h.groups;
  const unsigned each = h.leavers / h.groups;
  const unsigned begin = g * each + (g < longer ? g : longer);
  const unsigned end = begin + each + (g < longer ? 1 : 0);
  const unsigned at = h.sinks + (h.front - h.sinks + g) % h.residual;
  const bool sum_scores = a.sum_on_merge != 0;
  const GlobalSpan<const std::uint32_t> order(a.order, std::size_t{a.count} * a.stride);
  const std::size_t list = std::size_t{block_y()} * a.stride + h.kept;
  detail::FoldSum sum = {{}, {}, 0.0f, 0.0f, 0xffffffffu};
  if (at < h.front && warp_index() == 0) sum.add<K, V>(h.from, a.head_dim, at, sum_scores);
  for (unsigned i = begin + warp_index(); i < end; i += kCompactWarps)
    sum.add<K, V>(h.from, a.head_dim, order.at(list + i), sum_scores);
  all.leave(sum);
  sync_block();
  const float total = all.total_mass();
  if (warp_index() == 0) write_row(keys_of<K>(h.to, a.head_dim), at, all.mean(key, total));
  if (warp_index() == 1) write_row(values_of<V>(h.to, a.head_dim), at, all.mean(value, total));
  if (thread_index() == 2 * kWarp) all.write_fields(h.to, at, total, a.alpha, sum_scores);
}

}  // namespace zeromerge::cuda
