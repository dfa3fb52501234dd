// Causal attention of a prompt's call over everything that its heads hold, the call's own entries included,
// and the log of every row's sum of exponentials, which columns.hpp needs.
//
// A block takes 64 stacked rows of one kv head and goes through the entries in tiles of 64 with a running
// softmax. Plain f32 multiplications from shared memory: exact, and for engines that have no attention of
// their own. One that has tensor-core attention runs that and hands its log-sum-exp over. Cost: 4 * head_dim
// flops a row and entry; K and V are read once for every 64 rows.
#pragma once

#include "zeromerge/kernels/cuda/prompt.hpp"

namespace zeromerge::cuda {

struct PromptAttentionArguments {
  PromptHeads heads;
  const void* q;       // [tokens][query_heads][head_dim]
  void* out;           // [tokens][query_heads][head_dim]
  float* lse;          // [tokens][query_heads] natural, or null
  const float* sinks;  // [query_heads] natural logits that take part without a value, or null
  Element type;        // of q
  Element out_type;
  std::uint32_t tokens;
  float scale;    // attention scale times kLog2E
  float softcap;  // of logits in natural units; 0: none
};

// Queries, a tile of keys or values, weights.
template <unsigned kDim>
inline constexpr unsigned kPromptAttentionBytes = 4 * (kDim * kPromptRows + kDim * kPromptEntries +
                                                       kPromptRows * kPromptEntries);

namespace detail {

// What a thread knows of its four rows.
template <unsigned kDim>
struct RowsState {
  float maximum[4];
  float sum[4];
  float out[4][kDim / kPromptAcross];  // channels column + 4 * kPromptAcross * c + i at [4 * c + i]
};

// A tile's logits become weights [entry][row]; what was summed before is brought to the new maximum.
template <unsigned kDim>
ZEROMERGE_DEVICE void soften_tile(float (*logit)[4], TilePlace place, RowsState<kDim>& state,
                                  SharedSpan<float> weights) {
  ZEROMERGE_UNROLL_DEVICE
  for (int i = 0; i < 4; ++i) {
    float most = state.maximum[i];
    ZEROMERGE_UNROLL_DEVICE
    for (int j = 0; j < 4; ++j) most = most < logit[i][j] ? logit[i][j] : most;
    most = lanes_maximum<kPromptAcross>(most);  // of the threads that share rows
    const float factor = exp2_fast(state.maximum[i] - most);
    state.maximum[i] = most;
    float sum = 0.0f;
    ZEROMERGE_UNROLL_DEVICE
    for (int j = 0; j < 4; ++j) {
      const float p = exp2_fast(logit[i][j] - most);
      weights[(place.column + j) * kPromptRows + place.row + i] = p;
      sum += p;
    }
    state.sum[i] = state.sum[i] * factor + lanes_sum<kPromptAcross>(sum);
    ZEROMERGE_UNROLL_DEVICE
    for (float& x : state.out[i]) x *= factor;
  }
}

template <unsigned kDim>
ZEROMERGE_DEVICE void weigh_tile(SharedSpan<float> weights, SharedSpan<float> values, TilePlace place,
                                 RowsState<kDim>& state) {
  constexpr unsigned kParts = kDim / (4 * kPromptAcross);
  for (unsigned j = 0; j < kPromptEntries; ++j) {
    const Vec16 p = load16(weights, j * kPromptRows + place.row);
    ZEROMERGE_UNROLL_DEVICE
    for (unsigned c = 0; c < kParts; ++c) {
      const Vec16 v = load16(values, j * kDim + place.column + 4 * kPromptAcross * c);
      ZEROMERGE_UNROLL_DEVICE
      for (int i = 0; i < 4; ++i) ZEROMERGE_UNROLL_DEVICE
      for (int d = 0; d < 4; ++d)
        state.out[i][4 * c + d] += bits_of<float>(p.word[i]) * bits_of<float>(v.word[d]);
    }
  }
}

template <unsigned kDim>
ZEROMERGE_DEVICE void write_rows(const PromptAttentionArguments& a, unsigned h, unsigned first,
                                 TilePlace place, const RowsState<kDim>& state) {
  const PromptHeads& heads = a.heads;
  const unsigned query_heads = heads.kv_heads * heads.group;
  const std::size_t rows = std::size_t{a.tokens} * query_heads;
  ZEROMERGE_UNROLL_DEVICE
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned r = first + place.row + i;
    if (r >= a.tokens * heads.group) continue;
    const std::size_t row = std::size_t{r / heads.group} * query_heads + h * heads.group + r % heads.group;
    ZEROMERGE_UNROLL_DEVICE
    for (unsigned c = 0; c < kDim / kPromptAcross; ++c) {
      const unsigned d = place.column + c / 4 * 4 * kPromptAcross + c % 4;
      if (d < heads.head_dim)
        write_element(a.out, a.out_type, rows * heads.head_dim, row * heads.head_dim + d,
                      state.out[i][c] / state.sum[i]);
    }
    if (a.lse != nullptr && place.column == 0)
      GlobalSpan<float>(a.lse, rows)[row] = kLn2 * (state.maximum[i] + log2_fast(state.sum[i]));
  }
}

}  // namespace detail

// grid (blocks of 64 stacked rows, kv_heads). kDim: 64, 128 or 256, at least head_dim.
template <class K, class V, unsigned kDim>
ZEROMERGE_KERNEL(kPromptThreads)
prompt_attention(PromptAttentionArguments a) {
  const PromptHeads& heads = a.heads;
  const HeadRows head = rows_at(heads, block_y());
  const unsigned size = state_at(heads, block_y()).size;
  const unsigned first = block_x() * kPromptRows;
  SharedMemory shared;
  const auto q = shared.take<float>(kDim * kPromptRows);
  const auto tile = shared.take<float>(kDim * kPromptEntries);
  const auto weights = shared.take<float>(kPromptRows * kPromptEntries);
  const TilePlace place = tile_place();
  stage_rows<kDim>(heads, a.q, a.type, a.tokens, block_y(), first, a.scale, q);

  detail::RowsState<kDim> state;
  unsigned limit[4];
  ZEROMERGE_UNROLL_DEVICE
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned r = first + place.row + i;
    limit[i] = row_limit(size, a.tokens, heads.group, r);
    state.maximum[i] = kMaskedLogit;
    state.sum[i] = 0.0f;
    if (a.sinks != nullptr) {
      state.maximum[i] = GlobalSpan<const float>(a.sinks, heads.kv_heads * heads.group)
                             .at(block_y() * heads.group + r % heads.group) *
                         kLog2E;
      state.sum[i] = 1.0f;
    }
    ZEROMERGE_UNROLL_DEVICE
    for (float& x : state.out[i]) x = 0.0f;
  }
  const unsigned end = row_limit(size, a.tokens, heads.group, first + kPromptRows - 1);
  for (unsigned begin = 0; begin < end; begin += kPromptEntries) {
    sync_block();  // the tile and the weights are free
    stage_entries<K, kDim, true>(keys_of<K>(head, heads.head_dim), begin, end, tile);
    sync_block();
    float logit[4][4];
    multiply<kDim>(q, tile, place, logit);
    float bias[4];
    read_bias(head, begin + place.column, end, bias);
    ZEROMERGE_UNROLL_DEVICE
    for (unsigned i = 0; i < 4; ++i) ZEROMERGE_UNROLL_DEVICE
    for (unsigned j = 0; j < 4; ++j) {
      float x = logit[i][j];
      if (a.softcap > 0.0f) x = capped(x, a.softcap * kLog2E);
      logit[i][j] = begin + place.column + j < limit[i] ? x + bias[j] : kMaskedLogit;
    }
    detail::soften_tile<kDim>(logit, place, state, weights);
    sync_block();  // the weights are there, the keys done with
    stage_entries<V, kDim, false>(values_of<V>(head, heads.head_dim), begin, end, tile);
    sync_block();
    detail::weigh_tile<kDim>(weights, tile, place, state);
  }
  detail::write_rows<kDim>(a, block_y(), first, place, state);
}

}  // namespace zeromerge::cuda
