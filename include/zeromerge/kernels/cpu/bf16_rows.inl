// Numbers rounded to bf16, to the nearest, ties to even.

ZEROMERGE_INLINE __m256i to_bf16(Vec x) { return (__m256i)_mm512_cvtneps_pbh(x.v); }

// to[i] = x[i] as bf16 for n elements, a multiple of 16; in place if the two begin at the same address.
ZEROMERGE_INLINE void round_row(const float* x, std::size_t n, void* to) {
  for (std::size_t i = 0; i < n; i += 16)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(static_cast<char*>(to) + 2 * i), to_bf16(load(x + i)));
}

// What a CoarseGemm multiplies where there are instructions for bf16 (see gemm_plain.inl), up to panel_depth
// with zeros:
//   left   a row of bf16
//   right  [panel_depth / 2][16 columns][2]
struct Bf16Operands {
  static constexpr std::size_t panel_floats(std::size_t size) { return panel_depth(size) / 2 * kTile; }

  static Left queries(const Left& q, std::size_t rows, std::size_t size, float* space) {
    const std::size_t given = round_up(size, 16);
    for (std::size_t r = 0; r < rows; ++r) {
      float* to = space + r * q.stride;
      round_row(q.rows + r * q.stride, given, to);
      std::fill(to + given / 2, to + panel_depth(size) / 2, 0.0f);
    }
    return {space, q.stride};
  }

  static void pack(float* panel, std::size_t size) {
    for (std::size_t d = 0; d < size; d += 2) {
      const float* at = panel + d * kTile;
      const __m256i even = to_bf16(load(at));
      const __m256i odd = d + 1 < size ? to_bf16(load(at + kTile)) : _mm256_setzero_si256();
      const __m512i high = _mm512_maskz_slli_epi32(kAll, _mm512_maskz_cvtepu16_epi32(kAll, odd), 16);
      _mm512_storeu_si512(panel + d / 2 * kTile,
                          _mm512_or_si512(_mm512_maskz_cvtepu16_epi32(kAll, even), high));
    }
    std::fill(panel + (size + 1) / 2 * kTile, panel + panel_floats(size), 0.0f);
  }
};
