// One decode step of a layer on the device, as three launches on the caller's stream, or four:
//   decode_attention    append the new entry, attend, split over entries
//   combine_and_score   outputs from the parts; scores and who is worth least
//   rate_keys           who is worth least by the keys, where the policy asks them (keydiff)
//   evict               fold the leaver, turn the ring; what the heads hold changes here
// Nothing allocates and nothing waits, and the host needs to know only upper bounds, so a captured step
// replays.
#pragma once

#include <algorithm>
#include <cstddef>

#include "zeromerge/core/errors.hpp"
#include "zeromerge/kernels/cuda/decode_attention.hpp"
#include "zeromerge/kernels/cuda/key_diff.hpp"
#include "zeromerge/kernels/cuda/merge.hpp"
#include "zeromerge/kernels/cuda/runtime.hpp"
#include "zeromerge/kernels/cuda/score.hpp"

namespace zeromerge::cuda {

// How the work of a step is cut. It depends on bounds only, so that it stays while a graph is replayed.
struct DecodePlan {
  std::size_t heads;  // kv heads of the batch
  unsigned group;
  unsigned head_dim;
  unsigned most;     // entries of the largest head, the new one included, at any time
  unsigned segment;  // entries of a split
  unsigned splits;   // of a head with `most` entries
  unsigned score_blocks;

  std::size_t parts() const noexcept { return heads * splits * group; }
  // Floats of the scratch that one layer's step needs; layers may share it.
  std::size_t partial_floats() const noexcept { return parts() * (head_dim + 2); }
  std::size_t logit_floats() const noexcept { return heads * group * stride(); }
  std::size_t least_count() const noexcept { return heads * score_blocks; }
  unsigned stride() const noexcept { return (most + 3) / 4 * 4; }

  // floats: partial_floats(); logits: logit_floats(), or null where nobody asks for probabilities.
  Partials partials(float* floats, float* logits) const noexcept {
    float* maximum = floats + parts() * head_dim;
    return {floats, maximum, maximum + parts(), logits, splits, segment, stride()};
  }
};

// Throws Error.
inline void check_head_dim(std::size_t head_dim) {
  if (head_dim > kMostHeadDim)
    fail("cuda: head_dim may be at most ", kMostHeadDim, " on a device, got ", head_dim,
         "; use the host cache");
}

// Splits until every multiprocessor has kBlocksEach blocks, but no further than kLeastSegment entries, where
// writing and reading a part costs 2 * group / segment of what its entries cost, nor into more than 65535.
inline constexpr unsigned kBlocksEach = 4;
inline constexpr unsigned kLeastSegment = 64;
inline constexpr unsigned kSegmentUnit = 32;
inline DecodePlan plan_decode(unsigned multiprocessors, std::size_t heads, unsigned group, unsigned head_dim,
                              unsigned most) {
  check_head_dim(head_dim);
  const std::size_t wanted = (std::size_t{multiprocessors} * kBlocksEach + heads - 1) / heads;
  const std::size_t even = (most + wanted - 1) / wanted;
  const auto segment = static_cast<unsigned>(
      std::max<std::size_t>(kLeastSegment, (even + kSegmentUnit - 1) / kSegmentUnit * kSegmentUnit));
  const unsigned score_blocks = (most + kScoreEntries - 1) / kScoreEntries;
  return {heads, group, head_dim, most, segment, (most + segment - 1) / segment, score_blocks};
}

namespace detail {

template <class K, class V, unsigned kHeads, unsigned kDim>
void launch_attention_as(const DecodeArguments& a, const DecodePlan& plan, Stream stream) {
  launch(decode_attention<K, V, kHeads, kDim>, {plan.splits, static_cast<unsigned>(plan.heads)},
         DecodeShape<K, V, kHeads, kDim>::kThreads, DecodeShape<K, V, kHeads, kDim>::kSharedBytes, stream, a);
}
template <class K, class V, unsigned kHeads>
void launch_attention_of(const DecodeArguments& a, const DecodePlan& plan, Stream stream) {
  if (plan.head_dim <= 64) return launch_attention_as<K, V, kHeads, 64>(a, plan, stream);
  if (plan.head_dim <= 128) return launch_attention_as<K, V, kHeads, 128>(a, plan, stream);
  launch_attention_as<K, V, kHeads, 256>(a, plan, stream);
}

}  // namespace detail

template <class K, class V>
void launch_decode_attention(const DecodeArguments& a, const DecodePlan& plan, Stream stream) {
  if (plan.group == 1) return detail::launch_attention_of<K, V, 1>(a, plan, stream);
  if (plan.group == 2) return detail::launch_attention_of<K, V, 2>(a, plan, stream);
  if (plan.group <= 4) return detail::launch_attention_of<K, V, 4>(a, plan, stream);
  detail::launch_attention_of<K, V, kMostHeads>(a, plan, stream);
}

// appended: the attention has added an entry. Scores are updated where a.score.blocks is not 0.
inline void launch_combine_and_score(const CombineScoreArguments& a, const DecodePlan& plan, Stream stream) {
  launch(combine_and_score<kStepThreads>, {plan.group + a.score.blocks, static_cast<unsigned>(plan.heads)},
         kStepThreads, combine_shared_bytes(plan.group), stream, a);
}

// Of heads that somebody leaves in this step; over their scores.
template <class K>
void launch_rate_keys(const KeyRatingArguments& a, Stream stream) {
  launch(rate_keys<K>, {a.batch * a.heads.kv_heads}, kKeyRatingThreads, kKeyRatingBytes, stream, a);
}

template <class K, class V>
void launch_evict(const EvictArguments& a, const DecodePlan& plan, Stream stream) {
  launch(evict<K, V>, {static_cast<unsigned>(plan.heads)}, kStepThreads, kEvictSharedBytes, stream, a);
}

// What a step works with; all of it device memory.
struct DecodeStep {
  BatchHeads heads;
  StepRule rule;
  const void* q;  // [batch][query_heads][head_dim]
  const void* k;  // [batch][kv_heads][head_dim]
  const void* v;  // likewise
  Element type;   // of these three
  void* out;      // [batch][query_heads][head_dim]
  Element out_type;
  float* lse;          // [batch][query_heads] or null
  const float* sinks;  // [query_heads] or null
  float scale;         // attention scale, in natural units
  float softcap;
  unsigned batch;
  float* floats;         // plan.partial_floats()
  float* logits;         // plan.logit_floats(), or null: no scores are kept
  float* least_value;    // plan.least_count(), or null with logits
  unsigned* least_slot;  // likewise
};

// attend: what is there, and with k null nothing changes.
template <class K, class V>
void launch_attend(const DecodeStep& s, const DecodePlan& plan, Stream stream) {
  const Partials partials = plan.partials(s.floats, s.logits);
  launch_decode_attention<K, V>(
      {s.heads, partials, s.q, s.k, s.v, s.type, s.scale * kLog2E, s.softcap, s.batch}, plan, stream);
  const ScoreArguments score = {s.rule, s.least_value, s.least_slot,
                                s.k != nullptr && s.logits != nullptr ? plan.score_blocks : 0};
  launch_combine_and_score(
      {s.heads, partials, {s.out, s.lse, s.sinks, s.out_type}, score, s.batch, s.k != nullptr ? 1u : 0u},
      plan, stream);
}
template <class K, class V>
void launch_decode_step(const DecodeStep& s, const DecodePlan& plan, Stream stream) {
  launch_attend<K, V>(s, plan, stream);
  const bool rates = s.rule.rates_keys != 0;
  if (rates) launch_rate_keys<K>({s.heads, nullptr, 0, s.batch}, stream);
  // What the score's blocks have found counts where the score decides.
  const unsigned found = s.logits != nullptr && !rates ? plan.score_blocks : 0;
  launch_evict<K, V>({s.heads, s.rule, s.least_value, s.least_slot, found, s.batch}, plan, stream);
}

}  // namespace zeromerge::cuda
