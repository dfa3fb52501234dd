// What the rows of a prompt's call add to the scores, from Q, K and every row's log-sum-exp:
//   score_j <- keep * score_j + sum over the last `rows` tokens t and the group's query heads of
//              weight_t * exp(logit_tj - lse_t)         weight_t = 2^(log2_decay * tokens after t) * weight
// A block keeps 64 keys of one kv head in shared memory and goes through the rows in tiles of 64; sums have
// one order whatever the grid. Cost: 2 * head_dim flops a row and entry, with the decay of ZeroMerge 456 rows
// whatever the prompt's length; K is read once.
#pragma once

#include "zeromerge/kernels/cuda/prompt.hpp"

namespace zeromerge::cuda {

struct ColumnArguments {
  PromptHeads heads;
  const void* q;     // [tokens][query_heads][head_dim]
  const float* lse;  // [tokens][query_heads] natural
  float* into;       // [kv_heads][stride] in place of the heads' scores, or null
  std::uint32_t stride;
  Element type;            // of q
  std::uint32_t tokens;    // of the call, the newest entries
  std::uint32_t counting;  // last tokens that count
  float scale;             // attention scale times kLog2E
  float softcap;
  float log2_decay;
  float weight;
  float keep;  // 0: what stood there before may be anything
};

// Keys, queries; sums lie where the queries lay.
template <unsigned kDim>
inline constexpr unsigned kColumnBytes = 4 * (kDim * kPromptEntries + kDim * kPromptRows);

namespace detail {

// Adds a tile's weighted probabilities to the sums of a thread's four entries.
ZEROMERGE_DEVICE void add_columns(const ColumnArguments& a, unsigned h, unsigned size, unsigned first,
                                  unsigned entry, TilePlace place, const float* bias, float (*logit)[4],
                                  float* sum) {
  const PromptHeads& heads = a.heads;
  const unsigned query_heads = heads.kv_heads * heads.group;
  ZEROMERGE_UNROLL_DEVICE
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned r = first + place.row + i;
    const unsigned token = r / heads.group;
    if (token >= a.tokens || token < a.tokens - a.counting) continue;
    const unsigned limit = row_limit(size, a.tokens, heads.group, r);
    const float lse = GlobalSpan<const float>(a.lse, std::size_t{a.tokens} * query_heads)
                          .at(std::size_t{token} * query_heads + h * heads.group + r % heads.group) *
                      kLog2E;
    const float weight = a.weight * exp2_fast(a.log2_decay * static_cast<float>(a.tokens - 1 - token));
    ZEROMERGE_UNROLL_DEVICE
    for (unsigned j = 0; j < 4; ++j) {
      float x = logit[i][j];
      if (a.softcap > 0.0f) x = capped(x, a.softcap * kLog2E);
      if (entry + j < limit) sum[j] += weight * exp2_fast(x + bias[j] - lse);
    }
  }
}

}  // namespace detail

// grid (blocks of 64 entries of the largest head, kv_heads).
template <class K, unsigned kDim>
ZEROMERGE_KERNEL(kPromptThreads)
column_statistics(ColumnArguments a) {
  const PromptHeads& heads = a.heads;
  const HeadRows head = rows_at(heads, block_y());
  const unsigned size = state_at(heads, block_y()).size;
  const unsigned begin = block_x() * kPromptEntries;
  if (begin >= size) return;
  SharedMemory shared;
  const auto keys = shared.take<float>(kDim * kPromptEntries);
  const auto q = shared.take<float>(kDim * kPromptRows);
  const TilePlace place = tile_place();
  stage_entries<K, kDim, true>(keys_of<K>(head, heads.head_dim), begin, size, keys);
  float bias[4];
  read_bias(head, begin + place.column, size, bias);
  float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  // The first token that counts and sees the first of these entries.
  unsigned token = a.tokens - a.counting;
  const unsigned before = size - a.tokens;
  if (begin > before + token) token = begin - before;
  for (unsigned first = token * heads.group; first < a.tokens * heads.group; first += kPromptRows) {
    sync_block();  // the queries are done with
    stage_rows<kDim>(heads, a.q, a.type, a.tokens, block_y(), first, a.scale, q);
    sync_block();
    float logit[4][4];
    multiply<kDim>(q, keys, place, logit);
    detail::add_columns(a, block_y(), size, first, begin + place.column, place, bias, logit, sum);
  }
  sync_block();
  ZEROMERGE_UNROLL_DEVICE
  for (unsigned j = 0; j < 4; ++j)
    q[thread_index() / kPromptAcross * kPromptEntries + place.column + j] = sum[j];
  sync_block();
  const unsigned j = thread_index();
  if (j >= kPromptEntries || begin + j >= size) return;
  float total = 0.0f;
  for (unsigned part = 0; part < kPromptThreads / kPromptAcross; ++part)
    total += q[part * kPromptEntries + j];
  GlobalSpan<float> score(head.score, head.room);
  if (a.into != nullptr) score = GlobalSpan<float>(a.into + std::size_t{block_y()} * a.stride, a.stride);
  if (a.keep != 0.0f) total += score.at(begin + j) * a.keep;
  score[begin + j] = total;
}

}  // namespace zeromerge::cuda
