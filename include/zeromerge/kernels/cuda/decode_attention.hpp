// Attention of one new token over the entries of each head, split over blocks: block (split, head) takes
// `segment` entries of one kv head for all of its query heads and leaves
//   maximum, sum and out = sum of 2^(logit - maximum) v
// which combine.hpp puts together exactly. The block whose segment ends with the new entry writes it first.
//
// Cost: every chunk of K and V is read from memory once, by asynchronous copies, two tiles a warp in turn;
// with D channels and G query heads 4 G D flops for each entry. A warp works alone on tiles of up to 32
// entries:
//   products q.k   a lane owns an entry (or a part of its channels): no sums over lanes for each entry, the
//                  query is a broadcast from shared memory
//   softmax        online, per warp; the rescaling is skipped where the maximum stays
//   weighted sum   a lane owns 8 channels of some of the entries, a row is converted once for all heads
// Groups of more than kMostHeads query heads go through the segment once a part of the group: what the first
// pass brought in is in the near caches then (a segment of 256 entries of 128 channels in f16 is 128 KiB).
#pragma once

#include "zeromerge/kernels/cuda/rows.hpp"
#include "zeromerge/kernels/cuda/softcap.hpp"

namespace zeromerge::cuda {

struct DecodeArguments {
  BatchHeads heads;
  Partials partials;
  const void* q;   // [batch][query_heads][head_dim]
  const void* k;   // [batch][kv_heads][head_dim], or null: nothing is appended
  const void* v;   // likewise
  Element type;    // of these three
  float scale;     // attention scale times kLog2E
  float softcap;   // of logits in natural units; 0: none
  unsigned batch;  // rows
};

inline constexpr unsigned kMostHeads = 8;  // query heads of one pass: 8 heads x 8 channels are 64 registers

// kHeads: query heads of a pass; kDim: 64, 128 or 256, at least head_dim.
template <class K, class V, unsigned kHeads, unsigned kDim>
struct DecodeShape {
  static constexpr unsigned kWarps = 4;
  static constexpr unsigned kThreads = kWarps * kWarp;
  static constexpr unsigned kStages = 2;
  static constexpr unsigned kWidest = stored_bytes<K> < stored_bytes<V> ? stored_bytes<V> : stored_bytes<K>;
  // A tile of keys is 4 KiB or less, so that two blocks fit a multiprocessor of 164 KiB.
  static constexpr unsigned kFit = 4096 / (kDim * kWidest);
  static constexpr unsigned kTile = kFit < kWarp ? kFit : kWarp;  // entries: 8, 16 or 32
  static constexpr unsigned kParts = kWarp / kTile;               // lanes that share an entry in q.k
  static constexpr unsigned kLanes = kDim / 8;                    // lanes of a row in the weighted sum
  static constexpr unsigned kRun = kTile / (kWarp / kLanes);      // entries of a lane there
  // An odd number of chunks: lanes that read the same chunk of 8 neighbouring rows meet 8 different banks.
  static constexpr unsigned kKeyStride = (kDim * stored_bytes<K> / kChunkBytes | 1u) * kChunkBytes;
  static constexpr unsigned kValueStride = kDim * stored_bytes<V>;
  static constexpr unsigned kStageBytes = kTile * (kKeyStride + kValueStride);
  static constexpr unsigned kStaged = kWarps * kStages * kStageBytes;
  static constexpr unsigned kResult = kWarps * kHeads * kDim * 4;  // lies where the tiles lay
  static constexpr unsigned kSharedBytes = kHeads * kDim * 4 + kWarps * kHeads * kTile * 4 +
                                           (kStaged < kResult ? kResult : kStaged) + 2 * kWarps * kHeads * 4;
  static_assert(kRun % 4 == 0 && kWarp % kTile == 0);
};

namespace detail {

// What a warp has seen so far; sum: of this lane's entries only.
template <unsigned kHeads>
struct DecodeState {
  float maximum;  // lane g has that of query head g, which saves registers
  float sum[kHeads];
  float out[kHeads][8];  // of this lane's channels and entries
};

// What comes beside the rows of an entry, read a tile ahead.
struct EntryExtras {
  float key_scale, value_scale, bias;
};

template <class K, class V, unsigned kHeads, unsigned kDim>
struct DecodeWarp {
  using Shape = DecodeShape<K, V, kHeads, kDim>;
  static constexpr unsigned kTile = Shape::kTile;

  GlobalSpan<const float> bias;  // [room] or empty
  StoredRows<K> keys;
  StoredRows<V> values;
  unsigned first, last;              // entries of the block's segment
  SharedSpan<const float> q;         // [kHeads][kDim] scaled
  SharedSpan<float> weights;         // [kHeads][kTile] of this warp
  SharedSpan<unsigned char> stages;  // [kStages][tile of keys, tile of values] of this warp
  GlobalSpan<float> logits;          // [kHeads of the pass][stride] or empty
  unsigned stride;
  unsigned passing;  // query heads of this pass, at most kHeads
  float softcap;

  ZEROMERGE_DEVICE unsigned entry(unsigned tile) const { return first + tile * kTile; }
  ZEROMERGE_DEVICE unsigned tiles() const { return (last - first + kTile - 1) / kTile; }
  ZEROMERGE_DEVICE SharedSpan<unsigned char> key_tile(unsigned stage) const {
    return stages.part(stage * Shape::kStageBytes, kTile * Shape::kKeyStride);
  }
  ZEROMERGE_DEVICE SharedSpan<unsigned char> value_tile(unsigned stage) const {
    return stages.part(stage * Shape::kStageBytes + kTile * Shape::kKeyStride, kTile * Shape::kValueStride);
  }

  // Rows behind the last entry become zeros: their weight is 0, but 0 times what happens to lie there may not
  // be.
  template <class T>
  ZEROMERGE_DEVICE void fetch(const StoredRows<T>& rows, unsigned tile, SharedSpan<unsigned char> to,
                              unsigned to_stride) const {
    constexpr unsigned kAcross = kDim * stored_bytes<T> / kChunkBytes;  // lanes of a row
    const unsigned column = lane_index() % kAcross;
    if (column >= rows.chunks) return;
    ZEROMERGE_UNROLL_DEVICE
    for (unsigned row = lane_index() / kAcross; row < kTile; row += kWarp / kAcross) {
      const unsigned slot = entry(tile) + row;
      copy_async16(to, row * to_stride + column * kChunkBytes, rows.bytes,
                   rows.begin(slot) + column * kChunkBytes, slot < last);
    }
  }
  ZEROMERGE_DEVICE void fetch_tile(unsigned tile, unsigned stage) const {
    if (tile >= tiles()) return;
    fetch(keys, tile, key_tile(stage), Shape::kKeyStride);
    fetch(values, tile, value_tile(stage), Shape::kValueStride);
  }
  ZEROMERGE_DEVICE EntryExtras extras(unsigned tile) const {
    EntryExtras extra = {1.0f, 1.0f, 0.0f};
    const unsigned slot = entry(tile) + lane_index() % kTile;
    if (slot >= last) return extra;
    if constexpr (has_scale<K>) extra.key_scale = keys.scale[slot];
    if constexpr (has_scale<V>) extra.value_scale = values.scale[slot];
    if (bias) extra.bias = bias[slot];
    return extra;
  }

  // q.k of this lane's entry; lanes that share an entry have taken every kParts-th chunk each.
  ZEROMERGE_DEVICE void products(SharedSpan<unsigned char> tile, float* logit) const {
    constexpr unsigned kUnits = kChunkBytes / stored_bytes<K> / 8;  // runs of 8 channels in a chunk
    const unsigned row = lane_index() % kTile * Shape::kKeyStride;
    ZEROMERGE_UNROLL_DEVICE
    for (unsigned g = 0; g < kHeads; ++g) logit[g] = 0.0f;
    ZEROMERGE_UNROLL_DEVICE_BY(kHeads > 4 ? 1 : 2)
    for (unsigned chunk = lane_index() / kTile; chunk < keys.chunks; chunk += Shape::kParts) {
      const Vec16 stored = load16(tile, row + chunk * kChunkBytes);
      ZEROMERGE_UNROLL_DEVICE
      for (unsigned unit = 0; unit < kUnits; ++unit) {
        float k[8];
        widen8<K>(stored.word + 2 * unit, k);
        const unsigned channel = (chunk * kUnits + unit) * 8;
        ZEROMERGE_UNROLL_DEVICE
        for (unsigned g = 0; g < kHeads; ++g) {
          const Vec16 low = load16(q, g * kDim + channel);
          const Vec16 high = load16(q, g * kDim + channel + 4);
          ZEROMERGE_UNROLL_DEVICE
          for (unsigned i = 0; i < 4; ++i) {
            logit[g] += bits_of<float>(low.word[i]) * k[i];
            logit[g] += bits_of<float>(high.word[i]) * k[4 + i];
          }
        }
      }
    }
    ZEROMERGE_UNROLL_DEVICE
    for (unsigned bits = kTile; bits < kWarp; bits *= 2) ZEROMERGE_UNROLL_DEVICE
    for (unsigned g = 0; g < kHeads; ++g) logit[g] += shuffle_xor(kAllLanes, logit[g], bits);
  }

  // Logits in units of log 2, biased; entries behind the last one are masked.
  ZEROMERGE_DEVICE void finish_logits(unsigned tile, const EntryExtras& extra, float* logit) const {
    const unsigned slot = entry(tile) + lane_index() % kTile;
    ZEROMERGE_UNROLL_DEVICE
    for (unsigned g = 0; g < kHeads; ++g) {
      float x = logit[g] * extra.key_scale;
      if (softcap > 0.0f) x = capped(x, softcap * kLog2E);
      logit[g] = slot < last ? x + extra.bias * kLog2E : kMaskedLogit;
      if (logits && slot < last && lane_index() < kTile && g < passing)
        logits[std::size_t{g} * stride + slot] = logit[g];
    }
  }

  // Logits become weights in shared memory; what was summed before is brought to the new maximum.
  ZEROMERGE_DEVICE void soften(const EntryExtras& extra, const float* logit,
                               DecodeState<kHeads>& state) const {
    const unsigned lane = lane_index();
    ZEROMERGE_UNROLL_DEVICE
    for (unsigned g = 0; g < kHeads; ++g) {
      const float most = lanes_maximum<kTile>(logit[g]);
      const float before = shuffle(kAllLanes, state.maximum, g);
      if (most > before) {  // the same in all lanes
        const float factor = exp2_fast(before - most);
        if (lane == g) state.maximum = most;
        state.sum[g] *= factor;
        ZEROMERGE_UNROLL_DEVICE
        for (float& x : state.out[g]) x *= factor;
      }
      const float p = exp2_fast(logit[g] - (most > before ? most : before));
      if (lane < kTile) state.sum[g] += p;
      if (g % Shape::kParts == lane / kTile) weights[g * kTile + lane % kTile] = p * extra.value_scale;
    }
  }

  ZEROMERGE_DEVICE void weigh(SharedSpan<unsigned char> tile, DecodeState<kHeads>& state) const {
    const unsigned unit = lane_index() % Shape::kLanes;
    const unsigned begin = lane_index() / Shape::kLanes * Shape::kRun;
    if (unit >= row_units<V>(values.chunks)) return;
    ZEROMERGE_UNROLL_DEVICE_BY(kHeads > 4 ? 1 : 2)
    for (unsigned four = 0; four < Shape::kRun; four += 4) {
      Vec16 weight[kHeads];
      ZEROMERGE_UNROLL_DEVICE
      for (unsigned g = 0; g < kHeads; ++g) weight[g] = load16(weights, g * kTile + begin + four);
      ZEROMERGE_UNROLL_DEVICE
      for (unsigned i = 0; i < 4; ++i) {
        const Row8 v = load8<V>(tile, (begin + four + i) * Shape::kValueStride, unit);
        ZEROMERGE_UNROLL_DEVICE
        for (unsigned g = 0; g < kHeads; ++g) ZEROMERGE_UNROLL_DEVICE
        for (unsigned d = 0; d < 8; ++d) state.out[g][d] += bits_of<float>(weight[g].word[i]) * v.x[d];
      }
    }
  }

  // Tiles warp, warp + kWarps, ... of the segment.
  ZEROMERGE_DEVICE void attend(DecodeState<kHeads>& state) const {
    state.maximum = kMaskedLogit;
    ZEROMERGE_UNROLL_DEVICE
    for (unsigned g = 0; g < kHeads; ++g) {
      state.sum[g] = 0.0f;
      ZEROMERGE_UNROLL_DEVICE
      for (float& x : state.out[g]) x = 0.0f;
    }
    fetch_tile(warp_index(), 0);
    copy_commit();
    EntryExtras next = extras(warp_index());
    unsigned stage = 0;
    for (unsigned tile = warp_index(); tile < tiles(); tile += Shape::kWarps, stage ^= 1u) {
      const EntryExtras extra = next;
      fetch_tile(tile + Shape::kWarps, stage ^ 1u);
      copy_commit();
      copy_wait<1>();
      sync_warp();  // the tile, which other lanes have fetched
      float logit[kHeads];
      products(key_tile(stage), logit);
      finish_logits(tile, extra, logit);
      next = extras(tile + Shape::kWarps);  // not before the products, which need the registers
      soften(extra, logit, state);
      sync_warp();  // the weights
      weigh(value_tile(stage), state);
      sync_warp();  // the tile and the weights may be overwritten
    }
    copy_wait<0>();
  }
};

// Query heads [begin, begin + passing) of a kv head, scaled; the rest are zeros.
template <unsigned kHeads, unsigned kDim>
ZEROMERGE_DEVICE void stage_queries(const DecodeArguments& a, std::size_t begin, unsigned passing,
                                    SharedSpan<float> q) {
  const unsigned dim = a.heads.head_dim;
  const std::size_t count = std::size_t{a.batch} * a.heads.kv_heads * a.heads.group * dim;
  for (unsigned i = thread_index(); i < kHeads * kDim; i += block_threads()) {
    const unsigned g = i / kDim;
    const unsigned d = i % kDim;
    float x = 0.0f;
    if (g < passing && d < dim) x = read_element(a.q, a.type, count, (begin + g) * dim + d) * a.scale;
    q[i] = x;
  }
}

// The warps' states become the block's. result: [kWarps][kHeads][kDim]; scalars: [2][kWarps][kHeads].
template <class Shape, unsigned kHeads, unsigned kDim>
ZEROMERGE_DEVICE void leave_partial(const DecodeState<kHeads>& state, const Partials& partials, unsigned dim,
                                    std::size_t part, std::size_t parts, unsigned passing,
                                    SharedSpan<float> result, SharedSpan<float> scalars) {
  const unsigned lane = lane_index();
  const unsigned warp = warp_index();
  const auto sums = scalars.part(Shape::kWarps * kHeads, Shape::kWarps * kHeads);
  if (lane < kHeads) scalars[warp * kHeads + lane] = state.maximum;
  ZEROMERGE_UNROLL_DEVICE
  for (unsigned g = 0; g < kHeads; ++g) {
    const float sum = lanes_sum<kWarp>(state.sum[g]);
    if (lane == 0) sums[warp * kHeads + g] = sum;
    Vec16 half[2];
    ZEROMERGE_UNROLL_DEVICE
    for (unsigned d = 0; d < 8; ++d) {
      float x = state.out[g][d];
      ZEROMERGE_UNROLL_DEVICE
      for (unsigned bits = Shape::kLanes; bits < kWarp; bits *= 2) x += shuffle_xor(kAllLanes, x, bits);
      half[d / 4].word[d % 4] = bits_of<std::uint32_t>(x);
    }
    if (lane >= Shape::kLanes) continue;
    const unsigned at = (warp * kHeads + g) * kDim + 8 * lane;
    store16(result, at, half[0]);
    store16(result, at + 4, half[1]);
  }
  sync_block();
  const GlobalSpan<float> out(partials.out, parts * dim);
  for (unsigned i = thread_index(); i < passing * kDim; i += block_threads()) {
    const unsigned g = i / kDim;
    const unsigned d = i % kDim;
    float most = scalars[g];
    for (unsigned w = 1; w < Shape::kWarps; ++w) {
      const float other = scalars[w * kHeads + g];
      most = most < other ? other : most;
    }
    float sum = 0.0f;
    float x = 0.0f;
    for (unsigned w = 0; w < Shape::kWarps; ++w) {
      const float factor = exp2_fast(scalars[w * kHeads + g] - most);
      sum += sums[w * kHeads + g] * factor;
      x += result[(w * kHeads + g) * kDim + d] * factor;
    }
    if (d < dim) out[(part + g) * dim + d] = x;
    if (d != 0) continue;
    GlobalSpan<float>(partials.maximum, parts)[part + g] = most;
    GlobalSpan<float>(partials.sum, parts)[part + g] = sum;
  }
}

}  // namespace detail

// grid (splits, batch * kv_heads).
template <class K, class V, unsigned kHeads, unsigned kDim>
ZEROMERGE_KERNEL_RESIDENT(128, kHeads > 2 ? 2 : 3)
decode_attention(DecodeArguments a) {
  using Shape = DecodeShape<K, V, kHeads, kDim>;
  const HeadPlace place = head_place(a.heads, block_y(), a.batch);
  const HeadRows head = rows_at(a.heads, place.at);
  const HeadState state = state_at(a.heads, place.at);
  const bool appends = a.k != nullptr && takes_one(head, state);
  const unsigned entries = state.size + (appends ? 1 : 0);
  const unsigned first = block_x() * a.partials.segment;
  if (first >= entries) return;
  const unsigned last = entries - first < a.partials.segment ? entries : first + a.partials.segment;
  const unsigned dim = a.heads.head_dim;
  if (appends && last == entries)
    append_entry<K, V>(head, dim, state.size, state.tokens, a.k, a.v, a.type,
                       std::size_t{a.batch} * a.heads.kv_heads, block_y());

  SharedMemory shared;
  const auto q = shared.take<float>(kHeads * kDim);
  const auto weights = shared.take<float>(Shape::kWarps * kHeads * Shape::kTile);
  const auto scalars = shared.take<float>(2 * Shape::kWarps * kHeads);
  const auto tiles =
      shared.take<unsigned char>(Shape::kStaged < Shape::kResult ? Shape::kResult : Shape::kStaged);
  const std::size_t heads = std::size_t{a.batch} * a.heads.kv_heads;
  const std::size_t parts = heads * a.partials.splits * a.heads.group;
  for (unsigned begin = 0; begin < a.heads.group; begin += kHeads) {
    const unsigned passing = a.heads.group - begin < kHeads ? a.heads.group - begin : kHeads;
    const std::size_t query = std::size_t{block_y()} * a.heads.group + begin;
    detail::stage_queries<kHeads, kDim>(a, query, passing, q);
    sync_block();  // the queries, and the new entry
    GlobalSpan<float> logits;
    if (a.partials.logits != nullptr)
      logits = {a.partials.logits + query * a.partials.stride, std::size_t{passing} * a.partials.stride};
    const unsigned warp = warp_index();
    const detail::DecodeWarp<K, V, kHeads, kDim> worker = {
        {head.bias, head.room},
        keys_of<K>(head, dim),
        values_of<V>(head, dim),
        first,
        last,
        q,
        weights.part(warp * kHeads * Shape::kTile, kHeads * Shape::kTile),
        tiles.part(warp * Shape::kStages * Shape::kStageBytes, Shape::kStages * Shape::kStageBytes),
        logits,
        a.partials.stride,
        passing,
        a.softcap};
    detail::DecodeState<kHeads> seen;
    worker.attend(seen);
    sync_block();  // the tiles make room for the result
    detail::leave_partial<Shape, kHeads, kDim>(
        seen, a.partials, dim,
        (std::size_t{block_y()} * a.partials.splits + block_x()) * a.heads.group + begin, parts, passing,
        tiles.part(0, Shape::kResult).template as<float>(), scalars);
    sync_block();
  }
}

}  // namespace zeromerge::cuda
