// What entries are worth at the end of a prompt: what its calls add to the running scores, and the ratings of
// whole prompts that a device knows, by the last queries or by the keys.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "zeromerge/cuda/parts.hpp"
#include "zeromerge/cuda/query_tail.hpp"

namespace zeromerge::cuda {

inline float logit_scale(const CacheParts& parts) noexcept {
  return parts.geometry.attention_scale() * kLog2E;
}
inline PromptExtent extent_of(const CacheParts& parts, std::size_t tokens, std::uint32_t largest) noexcept {
  return {static_cast<unsigned>(tokens) * parts.group(), largest};
}

// The attention of a call's queries, added to the running scores. largest: entries of the largest head.
inline void add_columns(const CacheParts& parts, const PromptHeads& heads, const PromptTokens& tokens,
                        const float* lse, std::uint32_t largest, Stream stream) {
  const std::size_t tail = parts.policy.tail_rows;
  const auto counting =
      static_cast<std::uint32_t>(tail == 0 ? tokens.tokens : std::min<std::size_t>(tokens.tokens, tail));
  const float log2_decay = parts.policy.rule.log2_decay;
  const ColumnArguments a{heads,
                          tokens.q,
                          lse,
                          nullptr,
                          0,
                          tokens.type,
                          tokens.tokens,
                          counting,
                          logit_scale(parts),
                          parts.geometry.logit_softcap,
                          log2_decay,
                          1.0f,
                          std::exp2(log2_decay * static_cast<float>(tokens.tokens))};
  parts.launches.columns(a, extent_of(parts, tokens.tokens, largest), stream);
}

namespace detail {

inline void rate_by_window(const CacheParts& parts, float* plain, float* pooled, const PromptHeads& heads,
                           const QueryTail& tail, std::uint32_t stride, Stream stream) {
  const DevicePolicy& policy = parts.policy;
  const auto asked = static_cast<std::uint32_t>(std::min<std::size_t>(tail.tokens(), stride));
  const ColumnArguments a{heads,
                          tail.q(),
                          tail.lse(),
                          plain,
                          stride,
                          tail.type(),
                          asked,
                          asked,
                          logit_scale(parts),
                          parts.geometry.logit_softcap,
                          0.0f,
                          1.0f / static_cast<float>(asked * parts.group()),
                          0.0f};
  parts.launches.columns(a, extent_of(parts, asked, stride), stream);
  const PoolArguments pool{heads.states,
                           plain,
                           pooled,
                           stride,
                           parts.kv_heads(),
                           static_cast<std::uint32_t>(policy.window),
                           static_cast<std::uint32_t>(std::max<std::size_t>(1, policy.pooled)),
                           policy.pooled_by_maximum ? 1u : 0u};
  launch(pool_ratings<kPoolThreads>, {blocks_of(stride, kPoolThreads), parts.kv_heads()}, kPoolThreads, 0,
         stream, pool);
}

}  // namespace detail

// Ratings of all entries, to scratch.pooled: [kv_heads][largest].
inline void rate_entries(const CacheParts& parts, PromptScratch& scratch, const PromptHeads& heads,
                         const QueryTail& tail, std::uint32_t largest, Stream stream) {
  const std::size_t all = std::size_t{parts.kv_heads()} * largest;
  float* ratings = scratch.pooled.get(all);
  if (parts.policy.rule.rates_keys == 0)
    return detail::rate_by_window(parts, scratch.ratings.get(all), ratings, heads, tail, largest, stream);
  const BatchHeads one{heads.rows, heads.states, nullptr, heads.kv_heads, heads.group, heads.head_dim};
  parts.launches.rate_keys({one, ratings, largest, 1}, stream);
}

}  // namespace zeromerge::cuda
