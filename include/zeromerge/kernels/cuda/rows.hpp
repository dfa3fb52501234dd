// Rows of keys and values in the hands of a warp: 8 neighbouring channels a lane, so that a warp holds any
// row of up to 256 channels in registers. Every function here is called by all lanes of a warp.
#pragma once

#include "zeromerge/kernels/cuda/device.hpp"
#include "zeromerge/kernels/cuda/layout.hpp"

namespace zeromerge::cuda {

struct Row8 {
  float x[8];
};

// Keys or values of one head.
template <class T>
struct StoredRows {
  GlobalSpan<unsigned char> bytes;  // [room][row_bytes]
  GlobalSpan<float> scale;          // [room] q8, else empty
  unsigned chunks;                  // of a row

  ZEROMERGE_DEVICE std::size_t begin(unsigned slot) const { return std::size_t{slot} * chunks * kChunkBytes; }
};
template <class T>
ZEROMERGE_DEVICE StoredRows<T> stored_rows(void* rows, float* scale, unsigned room, unsigned head_dim) {
  const unsigned chunks = row_chunks<T>(head_dim);
  return {
      {static_cast<unsigned char*>(rows), std::size_t{room} * chunks * kChunkBytes}, {scale, room}, chunks};
}
template <class T>
ZEROMERGE_DEVICE StoredRows<T> keys_of(const HeadRows& head, unsigned head_dim) {
  return stored_rows<T>(head.keys, head.key_scale, head.room, head_dim);
}
template <class T>
ZEROMERGE_DEVICE StoredRows<T> values_of(const HeadRows& head, unsigned head_dim) {
  return stored_rows<T>(head.values, head.value_scale, head.room, head_dim);
}

// ---- 8 channels between storage and registers; of q8 without the row's scale

template <class T>
ZEROMERGE_DEVICE void widen8(const std::uint32_t* words, float* x) {
  if constexpr (has_scale<T>) {
    ZEROMERGE_UNROLL_DEVICE
    for (int i = 0; i < 2; ++i) {
      const Quad q = widen4_q8(words[i]);
      x[4 * i] = q.x, x[4 * i + 1] = q.y, x[4 * i + 2] = q.z, x[4 * i + 3] = q.w;
    }
  } else {
    ZEROMERGE_UNROLL_DEVICE
    for (int i = 0; i < 4; ++i) {
      Pair p;
      if constexpr (element_of<T> == Element::f16)
        p = widen2_f16(words[i]);
      else
        p = widen2_bf16(words[i]);
      x[2 * i] = p.x, x[2 * i + 1] = p.y;
    }
  }
}

// The 8 channels from element 8 * unit of a row that begins at byte `begin`. S: a span of bytes.
template <class T, class S>
ZEROMERGE_DEVICE Row8 load8(S bytes, std::size_t begin, unsigned unit) {
  Row8 row;
  if constexpr (has_scale<T>) {
    const std::uint64_t both = bytes.template as<const std::uint64_t>().at(begin / 8 + unit);
    const std::uint32_t words[2] = {static_cast<std::uint32_t>(both), static_cast<std::uint32_t>(both >> 32)};
    widen8<T>(words, row.x);
  } else {
    const Vec16 v = load16(bytes, begin + std::size_t{16} * unit);
    widen8<T>(v.word, row.x);
  }
  return row;
}

template <class T>
ZEROMERGE_DEVICE unsigned row_units(unsigned chunks) {
  return chunks * kChunkBytes / (8 * stored_bytes<T>);
}

// ---- whole rows

template <class T>
ZEROMERGE_DEVICE Row8 read_row(const StoredRows<T>& rows, unsigned slot) {
  Row8 row = {};
  if (lane_index() < row_units<T>(rows.chunks)) row = load8<T>(rows.bytes, rows.begin(slot), lane_index());
  if constexpr (has_scale<T>) {
    const float scale = rows.scale[slot];
    ZEROMERGE_UNROLL_DEVICE
    for (float& x : row.x) x *= scale;
  }
  return row;
}

// Of neighbouring lanes, a power of two of them, in each of them.
template <unsigned kLanes>
ZEROMERGE_DEVICE float lanes_maximum(float x) {
  ZEROMERGE_UNROLL_DEVICE
  for (unsigned bits = kLanes / 2; bits != 0; bits /= 2) {
    const float other = shuffle_xor(kAllLanes, x, bits);
    x = x < other ? other : x;
  }
  return x;
}
template <unsigned kLanes>
ZEROMERGE_DEVICE float lanes_sum(float x) {
  ZEROMERGE_UNROLL_DEVICE
  for (unsigned bits = kLanes / 2; bits != 0; bits /= 2) x += shuffle_xor(kAllLanes, x, bits);
  return x;
}

// Rounds to nearest even; q8 takes the row's own scale, 0 for a row too small to have one, as the CPU does.
template <class T>
ZEROMERGE_DEVICE void write_row(const StoredRows<T>& rows, unsigned slot, const Row8& row) {
  const unsigned lane = lane_index();
  const bool inside = lane < row_units<T>(rows.chunks);
  if constexpr (has_scale<T>) {
    float largest = 0.0f;
    ZEROMERGE_UNROLL_DEVICE
    for (const float x : row.x) {
      const float size = x < 0.0f ? -x : x;
      largest = largest < size ? size : largest;
    }
    const float scale = lanes_maximum<kWarp>(largest) / 127.0f;
    const float inverse = scale >= 1.2e-38f ? 1.0f / scale : 0.0f;
    std::uint64_t packed = 0;
    ZEROMERGE_UNROLL_DEVICE
    for (int i = 0; i < 8; ++i)
      packed |= static_cast<std::uint64_t>(round_to_int(row.x[i] * inverse) & 0xff) << (8 * i);
    if (inside) rows.bytes.template as<std::uint64_t>()[rows.begin(slot) / 8 + lane] = packed;
    if (lane == 0) rows.scale[slot] = inverse > 0.0f ? scale : 0.0f;
  } else {
    Vec16 v;
    ZEROMERGE_UNROLL_DEVICE
    for (int i = 0; i < 4; ++i)
      v.word[i] = static_cast<std::uint32_t>(narrow<T>(row.x[2 * i]).bits) |
                  static_cast<std::uint32_t>(narrow<T>(row.x[2 * i + 1]).bits) << 16;
    if (inside) store16(rows.bytes, rows.begin(slot) + 16 * lane, v);
  }
}

// As it is stored, bit for bit, but for the scale, which lies elsewhere.
template <class T>
ZEROMERGE_DEVICE void copy_row(const StoredRows<T>& rows, unsigned from, unsigned to) {
  const unsigned lane = lane_index();
  if (lane < rows.chunks)
    store16(rows.bytes, rows.begin(to) + 16 * lane, load16(rows.bytes, rows.begin(from) + 16 * lane));
}
template <class T>
ZEROMERGE_DEVICE void exchange_rows(const StoredRows<T>& rows, unsigned a, unsigned b) {
  const unsigned lane = lane_index();
  if (lane >= rows.chunks) return;
  const Vec16 x = load16(rows.bytes, rows.begin(a) + 16 * lane);
  const Vec16 y = load16(rows.bytes, rows.begin(b) + 16 * lane);
  store16(rows.bytes, rows.begin(a) + 16 * lane, y);
  store16(rows.bytes, rows.begin(b) + 16 * lane, x);
}

// ---- what the caller gives and takes: plain arrays of any element type

template <class T>
ZEROMERGE_DEVICE float element_at(const void* data, std::size_t count, std::size_t i) {
  return widen(GlobalSpan<const T>(static_cast<const T*>(data), count).at(i));
}
ZEROMERGE_DEVICE float read_element(const void* data, Element type, std::size_t count, std::size_t i) {
  if (type == Element::f16) return element_at<f16>(data, count, i);
  if (type == Element::bf16) return element_at<bf16>(data, count, i);
  return element_at<float>(data, count, i);
}
ZEROMERGE_DEVICE void write_element(void* data, Element type, std::size_t count, std::size_t i, float x) {
  if (type == Element::f16)
    GlobalSpan<f16>(static_cast<f16*>(data), count)[i] = narrow<f16>(x);
  else if (type == Element::bf16)
    GlobalSpan<bf16>(static_cast<bf16*>(data), count)[i] = narrow<bf16>(x);
  else
    GlobalSpan<float>(static_cast<float*>(data), count)[i] = x;
}

// Row `r` of [rows][head_dim].
ZEROMERGE_DEVICE Row8 read_given(const void* data, Element type, std::size_t rows, unsigned head_dim,
                                 std::size_t r) {
  Row8 row = {};
  ZEROMERGE_UNROLL_DEVICE
  for (unsigned i = 0; i < 8; ++i) {
    const unsigned d = 8 * lane_index() + i;
    if (d < head_dim) row.x[i] = read_element(data, type, rows * head_dim, r * head_dim + d);
  }
  return row;
}

// One entry more at `slot`: mass 1, score 0. Row r of k and v, [rows][head_dim], by three warps of the block,
// which has at least that many; a sync_block() must follow.
template <class K, class V>
ZEROMERGE_DEVICE void append_entry(const HeadRows& head, unsigned head_dim, unsigned slot, unsigned position,
                                   const void* k, const void* v, Element type, std::size_t rows,
                                   std::size_t r) {
  if (warp_index() == 0)
    write_row(keys_of<K>(head, head_dim), slot, read_given(k, type, rows, head_dim, r));
  else if (warp_index() == 1)
    write_row(values_of<V>(head, head_dim), slot, read_given(v, type, rows, head_dim, r));
  else if (thread_index() == 2 * kWarp) {
    GlobalSpan<std::uint32_t>(head.position, head.room)[slot] = position;
    if (head.score != nullptr) GlobalSpan<float>(head.score, head.room)[slot] = 0.0f;
    if (head.mass == nullptr) return;
    GlobalSpan<float>(head.mass, head.room)[slot] = 1.0f;
    GlobalSpan<float>(head.bias, head.room)[slot] = 0.0f;
  }
}

// ---- which head a block works on

struct HeadPlace {
  unsigned row;    // of the batch
  unsigned head;   // kv head
  std::size_t at;  // in rows and states of BatchHeads
};
ZEROMERGE_DEVICE HeadPlace head_place(const BatchHeads& heads, unsigned index, unsigned batch) {
  const unsigned row = index / heads.kv_heads;
  unsigned sequence = row;
  if (heads.sequences != nullptr) sequence = GlobalSpan<const std::uint32_t>(heads.sequences, batch)[row];
  return {row, index % heads.kv_heads, std::size_t{sequence} * heads.kv_heads + index % heads.kv_heads};
}
ZEROMERGE_DEVICE HeadRows rows_at(const BatchHeads& heads, std::size_t at) {
  return GlobalSpan<const HeadRows>(heads.rows, at + 1)[at];
}
ZEROMERGE_DEVICE HeadState state_at(const BatchHeads& heads, std::size_t at) {
  return GlobalSpan<const HeadState>(heads.states, at + 1)[at];
}
// Whether a step finds room for its entry. A head that keeps everything and is full takes no more, which its
// state shows: nothing is ever written behind its memory, though a replayed step asks no host.
ZEROMERGE_DEVICE bool takes_one(const HeadRows& head, const HeadState& state) {
  return state.size < head.room;
}

}  // namespace zeromerge::cuda
