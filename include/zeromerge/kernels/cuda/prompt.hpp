// Prompts: what the kernels for many rows of queries share, and the kernels that take a call's keys and
// values.
//
// A prompt's call brings `tokens` tokens of one sequence to all heads of one layer:
//   append_prompt    entries behind those that a head holds            grid (tokens, kv_heads)
//   count_prompt     the states count them                             grid (1)
// then prompt_attention.hpp and columns.hpp. Rows of queries are stacked: row r of a kv head is query head r
// % group of token r / group, and sees the entries below its limit.
#pragma once

#include "zeromerge/kernels/cuda/rows.hpp"
#include "zeromerge/kernels/cuda/softcap.hpp"

namespace zeromerge::cuda {

// One layer's heads of one sequence.
struct PromptHeads {
  const HeadRows* rows;  // [kv_heads]
  HeadState* states;     // [kv_heads]
  std::uint32_t kv_heads;
  std::uint32_t group;
  std::uint32_t head_dim;
};

// What a call brings, contiguous.
struct PromptTokens {
  const void* q;  // [tokens][query_heads][head_dim]
  const void* k;  // [tokens][kv_heads][head_dim], after RoPE
  const void* v;  // likewise
  Element type;   // of these three
  std::uint32_t tokens;
};

ZEROMERGE_DEVICE HeadRows rows_at(const PromptHeads& heads, unsigned h) {
  return GlobalSpan<const HeadRows>(heads.rows, heads.kv_heads)[h];
}
ZEROMERGE_DEVICE HeadState state_at(const PromptHeads& heads, unsigned h) {
  return GlobalSpan<const HeadState>(heads.states, heads.kv_heads)[h];
}

inline constexpr unsigned kAppendThreads = 3 * kWarp;

template <class K, class V>
ZEROMERGE_KERNEL(kAppendThreads)
append_prompt(PromptHeads heads, PromptTokens given) {
  const unsigned t = block_x();
  const HeadRows head = rows_at(heads, block_y());
  const HeadState state = state_at(heads, block_y());
  append_entry<K, V>(head, heads.head_dim, state.size + t, state.tokens + t, given.k, given.v, given.type,
                     std::size_t{given.tokens} * heads.kv_heads, std::size_t{t} * heads.kv_heads + block_y());
}

// A template so that several files may include it.
template <unsigned kThreads>
ZEROMERGE_KERNEL(kThreads)
count_prompt(PromptHeads heads, unsigned tokens) {
  const GlobalSpan<HeadState> states(heads.states, heads.kv_heads);
  for (unsigned h = thread_index(); h < heads.kv_heads; h += block_threads()) {
    HeadState state = states[h];
    state.size += tokens;
    state.tokens += tokens;
    states[h] = state;
  }
}

// ---- products of kPromptRows rows of queries with kPromptEntries keys, by 256 threads, 4 x 4 each

inline constexpr unsigned kPromptThreads = 256;
inline constexpr unsigned kPromptRows = 64;
inline constexpr unsigned kPromptEntries = 64;
inline constexpr unsigned kPromptAcross = 16;  // threads side by side, neighbours in a warp

// Where a thread works in a tile.
struct TilePlace {
  unsigned row, column;  // the first of four
};
ZEROMERGE_DEVICE TilePlace tile_place() {
  return {thread_index() / kPromptAcross * 4, thread_index() % kPromptAcross * 4};
}

// Rows [first, first + 64) of stacked queries as [channel][row], scaled; zeros behind the last row and
// channel. Neighbouring threads take neighbouring rows, so that what they write lies in different banks.
template <unsigned kDim>
ZEROMERGE_DEVICE void stage_rows(const PromptHeads& heads, const void* q, Element type, unsigned tokens,
                                 unsigned h, unsigned first, float scale, SharedSpan<float> to) {
  const unsigned dim = heads.head_dim;
  const unsigned query_heads = heads.kv_heads * heads.group;
  const std::size_t count = std::size_t{tokens} * query_heads * dim;
  const unsigned r = first + thread_index() % kPromptRows;
  const bool inside = r < tokens * heads.group;
  const std::size_t begin =
      (std::size_t{r / heads.group} * query_heads + h * heads.group + r % heads.group) * dim;
  for (unsigned d = thread_index() / kPromptRows; d < kDim; d += kPromptThreads / kPromptRows) {
    float x = 0.0f;
    if (inside && d < dim) x = read_element(q, type, count, begin + d) * scale;
    to[d * kPromptRows + r - first] = x;
  }
}

// Entries [first, first + 64) in f32, zeros behind the last one and behind the row's channels; as
// [channel][entry] or as [entry][channel].
template <class T, unsigned kDim, bool kByChannel>
ZEROMERGE_DEVICE void stage_entries(const StoredRows<T>& rows, unsigned first, unsigned last,
                                    SharedSpan<float> to) {
  constexpr unsigned kUnits = kDim / 8;
  const unsigned units = row_units<T>(rows.chunks);
  for (unsigned i = thread_index(); i < kPromptEntries * kUnits; i += kPromptThreads) {
    const unsigned j = kByChannel ? i % kPromptEntries : i / kUnits;
    const unsigned unit = kByChannel ? i / kPromptEntries : i % kUnits;
    Row8 row = {};
    if (first + j < last && unit < units) {
      row = load8<T>(rows.bytes, rows.begin(first + j), unit);
      if constexpr (has_scale<T>) {
        const float scale = rows.scale[first + j];
        ZEROMERGE_UNROLL_DEVICE
        for (float& x : row.x) x *= scale;
      }
    }
    if constexpr (kByChannel) {
      ZEROMERGE_UNROLL_DEVICE
      for (unsigned c = 0; c < 8; ++c) to[(8 * unit + c) * kPromptEntries + j] = row.x[c];
    } else {
      ZEROMERGE_UNROLL_DEVICE
      for (unsigned half = 0; half < 8; half += 4) {
        Vec16 v;
        ZEROMERGE_UNROLL_DEVICE
        for (unsigned c = 0; c < 4; ++c) v.word[c] = bits_of<std::uint32_t>(row.x[half + c]);
        store16(to, j * kDim + 8 * unit + half, v);
      }
    }
  }
}

// product[i][j] = sum over the channels of q[channel][row + i] * k[channel][column + j].
template <unsigned kDim>
ZEROMERGE_DEVICE void multiply(SharedSpan<float> q, SharedSpan<float> k, TilePlace place,
                               float (*product)[4]) {
  ZEROMERGE_UNROLL_DEVICE
  for (int i = 0; i < 4; ++i) ZEROMERGE_UNROLL_DEVICE
  for (int j = 0; j < 4; ++j) product[i][j] = 0.0f;
  for (unsigned d = 0; d < kDim; ++d) {
    const Vec16 a = load16(q, d * kPromptRows + place.row);
    const Vec16 b = load16(k, d * kPromptEntries + place.column);
    ZEROMERGE_UNROLL_DEVICE
    for (int i = 0; i < 4; ++i) ZEROMERGE_UNROLL_DEVICE
    for (int j = 0; j < 4; ++j) product[i][j] += bits_of<float>(a.word[i]) * bits_of<float>(b.word[j]);
  }
}

// The bias of four entries in units of log 2; 0 behind the last one.
ZEROMERGE_DEVICE void read_bias(const HeadRows& head, unsigned first, unsigned last, float* bias) {
  ZEROMERGE_UNROLL_DEVICE
  for (unsigned j = 0; j < 4; ++j) {
    bias[j] = 0.0f;
    if (head.bias != nullptr && first + j < last)
      bias[j] = GlobalSpan<const float>(head.bias, head.room).at(first + j) * kLog2E;
  }
}

// Entries that row r of a call of `tokens` tokens sees, of a head that holds `size`, the call's own included.
ZEROMERGE_DEVICE unsigned row_limit(unsigned size, unsigned tokens, unsigned group, unsigned r) {
  const unsigned token = r / group < tokens ? r / group : tokens - 1;
  return size - tokens + token + 1;
}

}  // namespace zeromerge::cuda
