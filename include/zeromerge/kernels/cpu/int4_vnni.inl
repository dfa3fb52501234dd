// q4 with instructions that multiply bytes (VNNI): nibbles are the unsigned bytes, factors the signed ones,
// in units of the largest. See int4.inl for the formulas.

ZEROMERGE_INLINE __m512i low_nibbles(__m512i x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
ZEROMERGE_INLINE __m512i high_nibbles(__m512i x) {
  return low_nibbles(_mm512_maskz_srli_epi16(0xffffffffu, x, 4));
}
ZEROMERGE_INLINE __m512i four_bytes(const signed char* p) {
  std::int32_t x;
  std::memcpy(&x, p, sizeof x);
  return _mm512_set1_epi32(x);
}
ZEROMERGE_INLINE __m512i dot_bytes(__m512i sum, __m512i nibbles, __m512i factors) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(nibbles), "v"(factors));
  return sum;
}
ZEROMERGE_INLINE Vec as_floats(__m512i x) { return {_mm512_maskz_cvtepi32_ps(kAll, x)}; }
ZEROMERGE_INLINE Vec magnitude(Vec x) { return max(x, sub(zero(), x)); }
// So small that 127 / x could overflow counts as 0.
ZEROMERGE_INLINE float inverse_or_zero(float most, float units) {
  return most > 1e-30f ? units / most : 0.0f;
}

// The factors of a group's channels in bytes, for G rows: [dims] in units of unit[g]. What rounding takes
// away stays with the middle of the grid, minimum + 7.5 * scale, in rest[g]: only a nibble's way from the
// middle is multiplied with a rounded factor.
template <int G>
ZEROMERGE_INLINE void int4_factors(const float* q, std::size_t q_stride, const f16* scale, std::size_t dims,
                                   signed char (*factor)[kMaxHeadDim], float* unit, float* rest) {
  alignas(64) float scaled[G][kMaxHeadDim];
  Vec top[G], middle[G];
  ZEROMERGE_UNROLL
  for (int g = 0; g < G; ++g) top[g] = middle[g] = zero();
  for (std::size_t d = 0; d < dims; d += 16) {
    const Vec s = load_as<f16>(scale + d);
    const Vec m = fma(s, set1(7.5f), load_as<f16>(scale + dims + d));
    ZEROMERGE_UNROLL
    for (int g = 0; g < G; ++g) {
      const Vec x = load(q + static_cast<std::size_t>(g) * q_stride + d);
      const Vec f = mul(x, s);
      store(scaled[g] + d, f);
      top[g] = max(top[g], magnitude(f));
      middle[g] = fma(x, m, middle[g]);
    }
  }
  Vec inverse[G], back[G];
  ZEROMERGE_UNROLL
  for (int g = 0; g < G; ++g) {
    const float most = reduce_max(top[g]);
    unit[g] = most / 127.0f;
    inverse[g] = set1(inverse_or_zero(most, 127.0f));
    back[g] = set1(-7.5f * unit[g]);
  }
  for (std::size_t d = 0; d < dims; d += 16) {
    ZEROMERGE_UNROLL
    for (int g = 0; g < G; ++g) {
      const __m512i f = _mm512_maskz_cvtps_epi32(kAll, mul(load(scaled[g] + d), inverse[g]).v);
      middle[g] = fma(as_floats(f), back[g], middle[g]);
      _mm_store_si128(reinterpret_cast<__m128i*>(factor[g] + d), _mm512_maskz_cvtepi32_epi8(kAll, f));
    }
  }
  ZEROMERGE_UNROLL
  for (int g = 0; g < G; ++g) rest[g] = reduce_add(middle[g]);
}

// See int4_logits of int4.inl.
template <int G>
inline void int4_logits(const float* q, std::size_t q_stride, const KeyTiles<q4>& keys,
                        const unsigned char* group, float* out, std::size_t out_stride, const char* ahead) {
  alignas(64) signed char factor[G][kMaxHeadDim];
  float unit[G], rest[G];
  int4_factors<G>(q, q_stride, keys.scales(group), keys.dims, factor, unit, rest);
  constexpr int kSets = G <= 2 ? 2 : 1;  // so that enough sums are in flight
  __m512i sum[G][2][kSets];
  ZEROMERGE_UNROLL
  for (int i = 0; i < G * 2 * kSets; ++i) (&sum[0][0][0])[i] = _mm512_setzero_si512();
  for (std::size_t d = 0; d < keys.dims; d += 4 * kSets) {
    ZEROMERGE_UNROLL
    for (int set = 0; set < kSets; ++set, group += 64) {
      prefetch(ahead + (d + 4 * static_cast<std::size_t>(set)) * 16);
      const __m512i x = _mm512_loadu_si512(group);
      const __m512i first = low_nibbles(x), second = high_nibbles(x);
      ZEROMERGE_UNROLL
      for (int g = 0; g < G; ++g) {
        const __m512i f = four_bytes(factor[g] + d + 4 * static_cast<std::size_t>(set));
        sum[g][0][set] = dot_bytes(sum[g][0][set], first, f);
        sum[g][1][set] = dot_bytes(sum[g][1][set], second, f);
      }
    }
  }
  ZEROMERGE_UNROLL
  for (int g = 0; g < G; ++g) {
    ZEROMERGE_UNROLL
    for (int tile = 0; tile < 2; ++tile) {
      __m512i all = sum[g][tile][0];
      if constexpr (kSets == 2) all = _mm512_add_epi32(all, sum[g][tile][1]);
      store(out + static_cast<std::size_t>(g) * out_stride + 16 * tile,
            fma(as_floats(all), set1(unit[g]), set1(rest[g])));
    }
  }
}

// Weights of n entries in two bytes, 256 * high + low, for G rows, in units of unit[g]; rest[g] is what the
// minima add to every channel.
template <int G>
ZEROMERGE_INLINE void int4_weights(const float* p, std::size_t p_stride, const ValueRows<q4>& values,
                                   std::size_t first, std::size_t n, std::size_t s,
                                   signed char (*bytes)[2][kSegment], float* unit, float* rest) {
  constexpr float kTop = 127.0f * 256.0f + 127.0f;
  alignas(64) float scaled[G][kSegment];
  Vec top[G], minima[G];
  ZEROMERGE_UNROLL
  for (int g = 0; g < G; ++g) top[g] = minima[g] = zero();
  for (std::size_t j = 0; j < n; j += kTile) {
    const f16* scale = values.scales(values.tile((first + j) / kTile), s);
    const Vec by = load_as<f16>(scale);
    const Vec minimum = load_as<f16>(scale + kTile);
    ZEROMERGE_UNROLL
    for (int g = 0; g < G; ++g) {
      const Vec w = load(p + static_cast<std::size_t>(g) * p_stride + j);
      const Vec f = mul(w, by);
      store(scaled[g] + j, f);
      top[g] = max(top[g], f);
      minima[g] = fma(w, minimum, minima[g]);
    }
  }
  ZEROMERGE_UNROLL
  for (int g = 0; g < G; ++g) {
    const float most = reduce_max(top[g]);
    const Vec inverse = set1(inverse_or_zero(most, kTop));
    unit[g] = most / kTop;
    rest[g] = reduce_add(minima[g]);
    for (std::size_t j = 0; j < n; j += kTile) {
      const __m512i w = _mm512_maskz_cvtps_epi32(kAll, mul(load(scaled[g] + j), inverse).v);
      const __m512i high = _mm512_maskz_srli_epi32(kAll, _mm512_add_epi32(w, _mm512_set1_epi32(128)), 8);
      _mm_store_si128(reinterpret_cast<__m128i*>(bytes[g][0] + j), _mm512_maskz_cvtepi32_epi8(kAll, high));
      _mm_store_si128(reinterpret_cast<__m128i*>(bytes[g][1] + j), _mm512_maskz_cvtepi32_epi8(kAll, w));
    }
  }
}

// 16 * N channels of a tile, for G rows of weights: sums of high and low bytes, apart by octet where Sets
// is 2.
template <int G, int N, int Sets>
ZEROMERGE_INLINE void int4_tile(const unsigned char* tile, std::size_t octet_bytes,
                                const signed char (*bytes)[2][kSegment], std::size_t j,
                                __m512i (*sum)[2][N][Sets]) {
  ZEROMERGE_UNROLL
  for (int octet = 0; octet < 2; ++octet) {
    __m512i x[2][N];
    ZEROMERGE_UNROLL
    for (int c = 0; c < N; ++c) {
      const __m512i both = _mm512_loadu_si512(tile + static_cast<std::size_t>(octet) * octet_bytes + 64 * c);
      x[0][c] = low_nibbles(both);
      x[1][c] = high_nibbles(both);
    }
    ZEROMERGE_UNROLL
    for (int i = 0; i < 4 * G; ++i) {
      const int g = i / 4, half = i / 2 % 2, byte = i % 2;
      const __m512i w = four_bytes(bytes[g][byte] + j + 8 * octet + 4 * half);
      ZEROMERGE_UNROLL
      for (int c = 0; c < N; ++c) {
        __m512i& to = sum[g][byte][c][octet % Sets];
        to = dot_bytes(to, x[half][c], w);
      }
    }
  }
}

template <int G, int N>
ZEROMERGE_INLINE void int4_channels(const ValueRows<q4>& values, std::size_t first, std::size_t n,
                                    std::size_t from, const signed char (*bytes)[2][kSegment],
                                    const float* unit, const float* rest, float* out, const char* ahead) {
  constexpr int kSets = G * N <= 4 ? 2 : 1;
  __m512i sum[G][2][N][kSets];
  ZEROMERGE_UNROLL
  for (int i = 0; i < G * 2 * N * kSets; ++i) (&sum[0][0][0][0])[i] = _mm512_setzero_si512();
  const std::size_t tile_bytes = ValueRows<q4>::tile_bytes(values.row_size);
  for (std::size_t j = 0; j < n; j += kTile) {
    for (std::size_t line = 0; from == 0 && line < tile_bytes; line += 64)
      prefetch(ahead + j / kTile * tile_bytes + line);
    int4_tile<G, N, kSets>(values.tile((first + j) / kTile) + 4 * from, 4 * values.row_size, bytes, j, sum);
  }
  ZEROMERGE_UNROLL
  for (int g = 0; g < G; ++g) {
    ZEROMERGE_UNROLL
    for (int c = 0; c < N; ++c) {
      __m512i high = sum[g][0][c][0], low = sum[g][1][c][0];
      if constexpr (kSets == 2) {
        high = _mm512_add_epi32(high, sum[g][0][c][1]);
        low = _mm512_add_epi32(low, sum[g][1][c][1]);
      }
      const Vec all = fma(as_floats(high), set1(256.0f), as_floats(low));
      store(out + static_cast<std::size_t>(g) * values.row_size + from + 16 * static_cast<std::size_t>(c),
            fma(all, set1(unit[g]), set1(rest[g])));
    }
  }
}

// See int4_outputs of int4.inl.
template <int G>
inline void int4_outputs(const float* p, std::size_t p_stride, const ValueRows<q4>& values, std::size_t first,
                         std::size_t n, std::size_t s, float* out, const char* ahead) {
  alignas(64) signed char bytes[G][2][kSegment];
  float unit[G], rest[G];
  int4_weights<G>(p, p_stride, values, first, n, s, bytes, unit, rest);
  const std::size_t end = std::min(values.row_size, (s + 1) * kChannels);
  for (std::size_t d = s * kChannels; d < end; d += 32)
    if (end - d >= 32)
      int4_channels<G, 2>(values, first, n, d, bytes, unit, rest, out, ahead);
    else
      int4_channels<G, 1>(values, first, n, d, bytes, unit, rest, out, ahead);
}
