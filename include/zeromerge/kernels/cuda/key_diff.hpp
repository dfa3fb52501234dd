// KeyDiff on the device (score/key_diff.hpp): keys unlike the others are worth more,
//   rating_j = -cos(k_j, sum over the head's entries of k / |k|)
// One block a head, a warp an entry; the warps' sums are added in their order, so a head's ratings do not
// depend on anything else. Cost: reads the keys twice, once a block of decoded tokens.
#pragma once

#include "zeromerge/kernels/cuda/rows.hpp"

namespace zeromerge::cuda {

struct KeyRatingArguments {
  BatchHeads heads;
  float* ratings;  // [batch * kv_heads][stride]; null: the heads' scores, in a step
  std::uint32_t stride;
  std::uint32_t batch;
};

inline constexpr unsigned kKeyRatingThreads = 8 * kWarp;
inline constexpr std::size_t kKeyRatingBytes = kKeyRatingThreads / kWarp * kMostHeadDim * 4;

namespace detail {

ZEROMERGE_DEVICE float dot8(const Row8& a, const Row8& b) {
  float sum = 0.0f;
  ZEROMERGE_UNROLL_DEVICE
  for (unsigned i = 0; i < 8; ++i) sum += a.x[i] * b.x[i];
  return lanes_sum<kWarp>(sum);
}

// The sum of all warps' rows, in every warp. shared: [warps][kMostHeadDim].
ZEROMERGE_DEVICE Row8 sum_of_warps(const Row8& mine, SharedSpan<float> shared) {
  const unsigned first = 8 * lane_index();
  ZEROMERGE_UNROLL_DEVICE
  for (unsigned i = 0; i < 8; ++i) shared[warp_index() * kMostHeadDim + first + i] = mine.x[i];
  sync_block();
  Row8 all = {};
  for (unsigned w = 0; w < block_warps(); ++w) {
    ZEROMERGE_UNROLL_DEVICE
    for (unsigned i = 0; i < 8; ++i) all.x[i] += shared.at(w * kMostHeadDim + first + i);
  }
  return all;
}

}  // namespace detail

// grid (batch * kv_heads). In a step, which has appended an entry that the states do not count yet, only
// heads that somebody leaves are rated.
template <class K>
ZEROMERGE_KERNEL(kKeyRatingThreads)
rate_keys(KeyRatingArguments a) {
  const HeadPlace place = head_place(a.heads, block_x(), a.batch);
  const HeadRows head = rows_at(a.heads, place.at);
  const HeadState state = state_at(a.heads, place.at);
  const bool step = a.ratings == nullptr;
  if (step && (!takes_one(head, state) || state.size < state.capacity)) return;
  const unsigned entries = state.size + (step ? 1 : 0);
  const StoredRows<K> keys = keys_of<K>(head, a.heads.head_dim);
  GlobalSpan<float> ratings(head.score, head.room);
  if (!step) ratings = {a.ratings + std::size_t{block_x()} * a.stride, a.stride};
  SharedMemory shared;
  const auto sums = shared.take<float>(block_warps() * kMostHeadDim);

  Row8 mine = {};
  for (unsigned j = warp_index(); j < entries; j += block_warps()) {
    const Row8 key = read_row(keys, j);
    const float length = sqrt_exact(detail::dot8(key, key));
    if (length > 0.0f) {
      ZEROMERGE_UNROLL_DEVICE
      for (unsigned i = 0; i < 8; ++i) mine.x[i] += key.x[i] / length;
    }
    if (lane_index() == 0) ratings[j] = length;
  }
  const Row8 sum = detail::sum_of_warps(mine, sums);
  const float whole = sqrt_exact(detail::dot8(sum, sum));
  for (unsigned j = warp_index(); j < entries; j += block_warps()) {
    const float dot = detail::dot8(read_row(keys, j), sum);
    if (lane_index() != 0) continue;
    const float lengths = ratings.at(j) * whole;
    ratings[j] = lengths > 0.0f ? -dot / lengths : 0.0f;
  }
}

}  // namespace zeromerge::cuda
