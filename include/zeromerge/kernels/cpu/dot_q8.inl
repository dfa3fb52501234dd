// q8 with instructions that multiply bytes (VNNI): stored bytes are unsigned (q + 128), factors signed.

struct DotQ8 {
  using Stored = std::uint8_t;
  using Factor = std::int32_t;  // four signed bytes
  using Part = __m512i;
  using Sum = __m512i;
  static constexpr int kPack = 4;
  static constexpr int kParts = 1;
  static ZEROMERGE_INLINE void load(const Stored* at, Part* part) { part[0] = _mm512_loadu_si512(at); }
  static ZEROMERGE_INLINE Sum none() { return _mm512_setzero_si512(); }
  static ZEROMERGE_INLINE Sum plus(Sum x, Sum y) { return _mm512_add_epi32(x, y); }
  static ZEROMERGE_INLINE Sum step(Sum sum, Part part, const Factor* f) {
    asm("vpdpbusd {%2%{1to16%}, %1, %0|%0, %1, %2%{1to16%}}" : "+v"(sum) : "v"(part), "m"(*f));
    return sum;
  }
  static ZEROMERGE_INLINE Vec finish(Sum sum, const Factor*, std::size_t) {
    return {_mm512_maskz_cvtepi32_ps(kAll, sum)};
  }
};

// Of 16 integers whose sum is below 2^24.
ZEROMERGE_INLINE std::int32_t exact_sum(__m512i x) {
  return static_cast<std::int32_t>(reduce_add({_mm512_maskz_cvtepi32_ps(kAll, x)}));
}

// A prepared query row is [dims / 4] factors; its last two places hold its scale and what the 128 of every
// stored byte adds to a sum.
struct DotQ8Query : DotQ8 {
  static ZEROMERGE_INLINE Vec finish(Sum sum, const Factor* row, std::size_t stride) {
    const __m512i centred = _mm512_sub_epi32(sum, _mm512_set1_epi32(row[stride - 1]));
    return mul({_mm512_maskz_cvtepi32_ps(kAll, centred)}, set1(std::bit_cast<float>(row[stride - 2])));
  }
};

template <>
inline void prepare<q8>(float* rows, std::size_t stride, std::size_t count, std::size_t dims) {
  const std::size_t padded = round_up(dims, 16);
  for (std::size_t r = 0; r < count; ++r) {
    float* row = rows + r * stride;
    Vec top = zero();
    for (std::size_t d = 0; d < padded; d += 16)
      top = max(top, max(load(row + d), sub(zero(), load(row + d))));
    const float largest = reduce_max(top);
    const float scale = largest / 127.0f;
    const Vec inverse = set1(largest > 0.0f ? 127.0f / largest : 0.0f);
    __m512i total = _mm512_setzero_si512();
    auto* bytes = reinterpret_cast<signed char*>(row);
    for (std::size_t d = 0; d < padded; d += 16) {  // bytes are written behind what has been read
      const __m512i q = _mm512_maskz_cvtps_epi32(kAll, mul(load(row + d), inverse).v);
      total = _mm512_add_epi32(total, q);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes + d), _mm512_maskz_cvtepi32_epi8(kAll, q));
    }
    const std::int32_t offset = 128 * exact_sum(total);
    std::memcpy(row + stride - 2, &scale, sizeof scale);
    std::memcpy(row + stride - 1, &offset, sizeof offset);
  }
}

template <>
inline void logits<q8>(const float* q, std::size_t q_stride, std::size_t group, const KeyTiles<q8>& keys,
                       std::size_t first, std::size_t tiles, float* out, std::size_t out_stride,
                       const void* ahead) {
  dot_rows<DotQ8Query>(reinterpret_cast<const std::int32_t*>(q), q_stride, group, keys.tile(first / kTile),
                       keys.tile_size(), keys.dims / 4, tiles, out, out_stride,
                       static_cast<const char*>(ahead));
}

// Weights p * scale in units of the largest scale / kUnits, in two signed bytes each: 256 * high + low.
inline constexpr float kUnits = 32639.0f;  // 127 * 256 + 127
inline std::int32_t split_weights(const float* p, const float* scale, std::size_t n, float unit,
                                  signed char* high, signed char* low) {
  const Vec inverse = set1(unit > 0.0f ? 1.0f / unit : 0.0f);
  __m512i total = _mm512_setzero_si512();
  for (std::size_t j = 0; j < n; j += 16) {
    const __m512i w = _mm512_maskz_cvtps_epi32(kAll, mul(mul(load(p + j), load(scale + j)), inverse).v);
    total = _mm512_add_epi32(total, w);
    const __m512i top = _mm512_maskz_srai_epi32(kAll, _mm512_add_epi32(w, _mm512_set1_epi32(128)), 8);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(high + j), _mm512_maskz_cvtepi32_epi8(kAll, top));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(low + j), _mm512_maskz_cvtepi32_epi8(kAll, w));
  }
  return exact_sum(total);
}

template <>
inline void weighted_sum<q8>(const float* p, std::size_t p_stride, std::size_t group,
                             const ValueRows<q8>& values, std::size_t first, std::size_t n, float* out,
                             const void* ahead) {
  constexpr std::size_t kHeads = 2;  // with two rows of bytes each
  alignas(64) signed char bytes[2 * kHeads][kSegment];
  alignas(64) float sums[2 * kHeads * kMaxHeadDim];
  const float* scale = values.scale + first;
  Vec top = load(scale);
  for (std::size_t j = 16; j < n; j += 16) top = max(top, load(scale + j));
  const float unit = reduce_max(top) / kUnits;
  for (std::size_t g = 0; g < group; g += kHeads) {
    const std::size_t heads = std::min(kHeads, group - g);
    std::int32_t total[kHeads];
    for (std::size_t h = 0; h < heads; ++h)
      total[h] = split_weights(p + (g + h) * p_stride, scale, n, unit, bytes[2 * h], bytes[2 * h + 1]);
    weigh_rows<DotQ8>(reinterpret_cast<const std::int32_t*>(bytes[0]), kSegment / 4, 2 * heads,
                      values.row(first), values.row_size, (n + 3) / 4, sums,
                      g == 0 ? static_cast<const char*>(ahead) : nullptr);
    for (std::size_t h = 0; h < heads; ++h) {
      const float* high = sums + 2 * h * values.row_size;
      const Vec centre = set1(-128.0f * static_cast<float>(total[h]));
      for (std::size_t d = 0; d < values.row_size; d += 16) {
        const Vec sum = fma(load(high + d), set1(256.0f), add(load(high + values.row_size + d), centre));
        store(out + (g + h) * values.row_size + d, mul(sum, set1(unit)));
      }
    }
  }
}
