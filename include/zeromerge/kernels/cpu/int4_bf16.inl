// q4 with dot products of bf16 pairs. A nibble in the upper mantissa of bf16 16.0 is 16 + nibble: two
// instructions widen 32 of them, and what the 16s add is taken away once.

ZEROMERGE_INLINE __m512i nibble_mask() { return _mm512_set1_epi16(0x0078); }
template <int Number>
ZEROMERGE_INLINE __m512bh sixteen_plus(__m512i x) {
  constexpr __mmask32 kEvery = 0xffffffffu;
  if constexpr (Number == 0)
    x = _mm512_maskz_slli_epi16(kEvery, x, 3);
  else
    x = _mm512_maskz_srli_epi16(kEvery, x, 4 * Number - 3);
  // (x & mask) | 16.0
  return (__m512bh)_mm512_ternarylogic_epi32(x, nibble_mask(), _mm512_set1_epi16(0x4180), 0xea);
}

// sum - 16 * (each bf16 that was stored for x, as f32).
ZEROMERGE_INLINE Vec minus_sixteens(Vec sum, __m256i rounded) {
  const Vec back = {
      _mm512_castsi512_ps(_mm512_maskz_slli_epi32(kAll, _mm512_maskz_cvtepu16_epi32(kAll, rounded), 16))};
  return fma(back, set1(-16.0f), sum);
}

// See int4_logits of int4.inl.
template <int G>
inline void int4_logits(const float* q, std::size_t q_stride, const KeyTiles<q4>& keys,
                        const unsigned char* group, float* out, std::size_t out_stride, const char* ahead) {
  alignas(64) std::int32_t factor[G][kMaxHeadDim / 2];
  const f16* scale = keys.scales(group);
  Vec rest[G];
  ZEROMERGE_UNROLL
  for (int g = 0; g < G; ++g) rest[g] = zero();
  for (std::size_t d = 0; d < keys.dims; d += 16) {
    const Vec s = load_as<f16>(scale + d);
    const Vec m = load_as<f16>(scale + keys.dims + d);
    ZEROMERGE_UNROLL
    for (int g = 0; g < G; ++g) {
      const Vec x = load(q + static_cast<std::size_t>(g) * q_stride + d);
      const __m256i f = to_bf16(mul(x, s));
      _mm256_store_si256(reinterpret_cast<__m256i*>(factor[g] + d / 2), f);
      rest[g] = minus_sixteens(fma(x, m, rest[g]), f);
    }
  }
  Vec sum[G][2];
  ZEROMERGE_UNROLL
  for (int g = 0; g < G; ++g) sum[g][0] = sum[g][1] = zero();
  for (std::size_t m = 0; m < keys.dims / 2; m += 2, group += 64) {
    prefetch(ahead + m * 32);
    const __m512i x = _mm512_loadu_si512(group);
    const __m512bh a0 = sixteen_plus<0>(x), a1 = sixteen_plus<1>(x);
    const __m512bh b0 = sixteen_plus<2>(x), b1 = sixteen_plus<3>(x);
    ZEROMERGE_UNROLL
    for (int g = 0; g < G; ++g) {
      sum[g][0] = dot_pairs(a0, factor[g] + m, sum[g][0]);
      sum[g][1] = dot_pairs(a1, factor[g] + m, sum[g][1]);
      sum[g][0] = dot_pairs(b0, factor[g] + m + 1, sum[g][0]);
      sum[g][1] = dot_pairs(b1, factor[g] + m + 1, sum[g][1]);
    }
  }
  ZEROMERGE_UNROLL
  for (int g = 0; g < G; ++g) {
    const Vec constant = set1(reduce_add(rest[g]));
    store(out + static_cast<std::size_t>(g) * out_stride, add(sum[g][0], constant));
    store(out + static_cast<std::size_t>(g) * out_stride + 16, add(sum[g][1], constant));
  }
}

// The four entry pairs of an octet, for G rows.
template <int G>
ZEROMERGE_INLINE void int4_octet(const unsigned char* at, const std::int32_t (*weight)[8], std::size_t octet,
                                 Vec* sum, std::size_t stride) {
  const __m512i x = _mm512_loadu_si512(at);
  const __m512bh part[4] = {sixteen_plus<0>(x), sixteen_plus<1>(x), sixteen_plus<2>(x), sixteen_plus<3>(x)};
  ZEROMERGE_UNROLL
  for (int g = 0; g < G; ++g) {
    Vec& s = sum[static_cast<std::size_t>(g) * stride];
    ZEROMERGE_UNROLL
    for (int k = 0; k < 4; ++k)
      s = dot_pairs(part[k], weight[g] + octet * 4 + static_cast<std::size_t>(k), s);
  }
}

// See int4_outputs of int4.inl.
template <int G>
inline void int4_outputs(const float* p, std::size_t p_stride, const ValueRows<q4>& values, std::size_t first,
                         std::size_t n, std::size_t s, float* out, const char* ahead) {
  const std::size_t width = std::min<std::size_t>(2, values.row_size / 16 - 2 * s);
  Vec sum[G][2][2];  // row, vector of channels, octet: enough sums in flight
  Vec rest[G];
  ZEROMERGE_UNROLL
  for (int g = 0; g < G; ++g) sum[g][0][0] = sum[g][0][1] = sum[g][1][0] = sum[g][1][1] = rest[g] = zero();
  const std::size_t bytes = ValueRows<q4>::tile_bytes(values.row_size);
  for (std::size_t j = 0; j < n; j += kTile) {
    const unsigned char* tile = values.tile((first + j) / kTile);
    const f16* scale = values.scales(tile, s);
    const Vec scales = load_as<f16>(scale);
    const Vec minima = load_as<f16>(scale + kTile);
    alignas(64) std::int32_t weight[G][8];
    ZEROMERGE_UNROLL
    for (int g = 0; g < G; ++g) {
      const Vec w = load(p + static_cast<std::size_t>(g) * p_stride + j);
      const __m256i f = to_bf16(mul(w, scales));
      _mm256_store_si256(reinterpret_cast<__m256i*>(weight[g]), f);
      rest[g] = minus_sixteens(fma(w, minima, rest[g]), f);
    }
    for (std::size_t line = 0; s == 0 && line < bytes; line += 64) prefetch(ahead + j / kTile * bytes + line);
    const unsigned char* at = tile + 2 * s * 64;
    const std::size_t octet = values.row_size * 4;
    int4_octet<G>(at, weight, 0, &sum[0][0][0], 4);
    int4_octet<G>(at + octet, weight, 1, &sum[0][0][1], 4);
    if (width < 2) continue;
    int4_octet<G>(at + 64, weight, 0, &sum[0][1][0], 4);
    int4_octet<G>(at + octet + 64, weight, 1, &sum[0][1][1], 4);
  }
  ZEROMERGE_UNROLL
  for (int g = 0; g < G; ++g) {
    const Vec constant = set1(reduce_add(rest[g]));
    for (std::size_t c = 0; c < width; ++c)
      store(out + static_cast<std::size_t>(g) * values.row_size + (2 * s + c) * 16,
            add(add(sum[g][c][0], sum[g][c][1]), constant));
  }
}
