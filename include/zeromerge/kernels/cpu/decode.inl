// Attention of one kv head for one new token: the group's query heads share one read of every key and value.
//   logit[g][j] = q[g].k[j] + bias[j]        (q comes scaled)
// Keys lie in tiles of 16 entries, [head_dim / 2][16][2] for 16-bit types and [head_dim][16] for f32; values
// row by row. A segment is a run of entries whose partial results (maximum, sum, output) combine exactly with
// those of the others.

ZEROMERGE_INLINE const float* bias_at(const float* bias, std::size_t tile) {
  return bias != nullptr ? bias + tile * 16 : nullptr;
}

// A cold cache is read from memory in pages too short for the CPU to see the pattern: ask for the next tiles,
// the next rows. Addresses behind the end are harmless.
template <class T>
ZEROMERGE_INLINE void prefetch_pair(const T* p) {
  __builtin_prefetch(p);
  if (sizeof(T) == 4) __builtin_prefetch(p + 16);
}
inline constexpr std::size_t kRowsAhead = 16;

// logits[g][t * 16 + slot] for `tiles` tiles. Pairs of tiles keep more sums in flight where registers allow.
template <class T, int G, int Tiles>
ZEROMERGE_INLINE void dot_tiles(const float* q, std::size_t q_stride, const T* keys, std::size_t tile_size,
                                std::size_t pairs, const float* bias, float* logits,
                                std::size_t logit_stride) {
  Vec sum[G][Tiles];
  ZEROMERGE_UNROLL
  for (int g = 0; g < G; ++g) {
    ZEROMERGE_UNROLL
    for (int t = 0; t < Tiles; ++t) sum[g][t] = bias != nullptr ? load(bias + t * 16) : zero();
  }
  for (std::size_t i = 0; i < pairs; ++i) {
    Vec even[Tiles], odd[Tiles];
    ZEROMERGE_UNROLL
    for (int t = 0; t < Tiles; ++t) {
      const T* at = keys + static_cast<std::size_t>(t) * tile_size + i * 32;
      prefetch_pair(at + Tiles * tile_size);
      load_pair<T>(at, even[t], odd[t]);
    }
    ZEROMERGE_UNROLL
    for (int g = 0; g < G; ++g) {
      const Vec q0 = set1(q[static_cast<std::size_t>(g) * q_stride + 2 * i]);
      const Vec q1 = set1(q[static_cast<std::size_t>(g) * q_stride + 2 * i + 1]);
      ZEROMERGE_UNROLL
      for (int t = 0; t < Tiles; ++t) sum[g][t] = fma(odd[t], q1, fma(even[t], q0, sum[g][t]));
    }
  }
  ZEROMERGE_UNROLL
  for (int g = 0; g < G; ++g) {
    ZEROMERGE_UNROLL
    for (int t = 0; t < Tiles; ++t)
      store(logits + static_cast<std::size_t>(g) * logit_stride + t * 16, sum[g][t]);
  }
}

template <class T, int G>
inline void logits_of(const float* q, std::size_t q_stride, const T* keys, std::size_t tile_size,
                      std::size_t pairs, const float* bias, std::size_t tiles, float* logits,
                      std::size_t logit_stride) {
  constexpr int kPaired = G * 4 <= kDotBudget + 4 ? 4 : G * 2 <= kDotBudget ? 2 : 1;
  std::size_t t = 0;
  for (; t + kPaired <= tiles; t += kPaired)
    dot_tiles<T, G, kPaired>(q, q_stride, keys + t * tile_size, tile_size, pairs, bias_at(bias, t),
                             logits + t * 16, logit_stride);
  for (; t < tiles; ++t)
    dot_tiles<T, G, 1>(q, q_stride, keys + t * tile_size, tile_size, pairs, bias_at(bias, t), logits + t * 16,
                       logit_stride);
}

// q: [group][q_stride], keys: whole tiles, bias: [tiles * 16] or null for none, logits:
// [group][logit_stride].
template <class T>
inline void logits(const float* q, std::size_t q_stride, std::size_t group, const T* keys,
                   std::size_t tile_size, std::size_t pairs, const float* bias, std::size_t tiles,
                   float* logits, std::size_t logit_stride) {
  std::size_t g = 0;
  for (; g + 4 <= group; g += 4)
    logits_of<T, 4>(q + g * q_stride, q_stride, keys, tile_size, pairs, bias, tiles,
                    logits + g * logit_stride, logit_stride);
  const float* rest = q + g * q_stride;
  float* out = logits + g * logit_stride;
  switch (group - g) {
    case 3:
      return logits_of<T, 3>(rest, q_stride, keys, tile_size, pairs, bias, tiles, out, logit_stride);
    case 2:
      return logits_of<T, 2>(rest, q_stride, keys, tile_size, pairs, bias, tiles, out, logit_stride);
    case 1:
      return logits_of<T, 1>(rest, q_stride, keys, tile_size, pairs, bias, tiles, out, logit_stride);
    default:
      return;
  }
}

// In place: logits[0 .. n) become exp(logit - maximum); what pads the last tile becomes 0. Returns the sum.
inline float exponentials(float* logits, std::size_t n, float& maximum) {
  const std::size_t padded = round_up(n, 16);
  for (std::size_t j = n; j < padded; ++j) logits[j] = kMasked;
  Vec top = load(logits);
  for (std::size_t j = 16; j < padded; j += 16) top = max(top, load(logits + j));
  maximum = reduce_max(top);
  const Vec shift = set1(maximum);
  Vec sum = zero();
  for (std::size_t j = 0; j < padded; j += 16) {
    const Vec p = exp(sub(load(logits + j), shift));
    store(logits + j, p);
    sum = add(sum, p);
  }
  return reduce_add(sum);
}

// out[g][0 .. 16 * N) = sum over j of p[g][j] * values[j][0 .. 16 * N).
template <class T, int G, int N>
ZEROMERGE_INLINE void weigh_columns(const float* p, std::size_t p_stride, const T* values,
                                    std::size_t row_size, std::size_t n, float* out, std::size_t out_stride,
                                    bool first) {
  Vec sum[G][N];
  ZEROMERGE_UNROLL
  for (int g = 0; g < G; ++g) {
    ZEROMERGE_UNROLL
    for (int c = 0; c < N; ++c)
      sum[g][c] = first ? zero() : load(out + static_cast<std::size_t>(g) * out_stride + c * 16);
  }
  for (std::size_t j = 0; j < n; ++j) {
    Vec v[N];
    ZEROMERGE_UNROLL
    for (int c = 0; c < N; ++c) {
      const T* at = values + j * row_size + c * 16;
      if (c * 16 * sizeof(T) % 64 == 0) __builtin_prefetch(at + kRowsAhead * row_size);
      v[c] = load_as<T>(at);
    }
    ZEROMERGE_UNROLL
    for (int g = 0; g < G; ++g) {
      const Vec w = set1(p[static_cast<std::size_t>(g) * p_stride + j]);
      ZEROMERGE_UNROLL
      for (int c = 0; c < N; ++c) sum[g][c] = fma(v[c], w, sum[g][c]);
    }
  }
  ZEROMERGE_UNROLL
  for (int g = 0; g < G; ++g) {
    ZEROMERGE_UNROLL
    for (int c = 0; c < N; ++c) store(out + static_cast<std::size_t>(g) * out_stride + c * 16, sum[g][c]);
  }
}

// Rows are taken in blocks small enough to stay in the first cache while the column strips pass over them.
template <class T, int G>
inline void weigh_group(const float* p, std::size_t p_stride, const T* values, std::size_t row_size,
                        std::size_t n, float* out, std::size_t out_stride) {
  constexpr int kStrip =
      kGemmVectors == 2 ? 4 : 1;  // 16-wide columns at a time: G * kStrip sums in registers
  const std::size_t block = std::max<std::size_t>(8, 16384 / (row_size * sizeof(T)));
  for (std::size_t j = 0; j < n; j += block) {
    const std::size_t rows = std::min(block, n - j);
    std::size_t c = 0;
    for (; c + kStrip * 16 <= row_size; c += kStrip * 16)
      weigh_columns<T, G, kStrip>(p + j, p_stride, values + j * row_size + c, row_size, rows, out + c,
                                  out_stride, j == 0);
    for (; c < row_size; c += 16)
      weigh_columns<T, G, 1>(p + j, p_stride, values + j * row_size + c, row_size, rows, out + c, out_stride,
                             j == 0);
  }
}

// values: [n][row_size], row_size a multiple of 16; p: [group][p_stride]; out: [group][row_size],
// overwritten.
template <class T>
inline void weighted_sum(const float* p, std::size_t p_stride, std::size_t group, const T* values,
                         std::size_t row_size, std::size_t n, float* out) {
  std::size_t g = 0;
  for (; g + 4 <= group; g += 4)
    weigh_group<T, 4>(p + g * p_stride, p_stride, values, row_size, n, out + g * row_size, row_size);
  const float* rest = p + g * p_stride;
  float* to = out + g * row_size;
  switch (group - g) {
    case 3:
      return weigh_group<T, 3>(rest, p_stride, values, row_size, n, to, row_size);
    case 2:
      return weigh_group<T, 2>(rest, p_stride, values, row_size, n, to, row_size);
    case 1:
      return weigh_group<T, 1>(rest, p_stride, values, row_size, n, to, row_size);
    default:
      return;
  }
}
