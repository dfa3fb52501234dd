// Sixteen floats as one AVX-512 register. The maskz forms with a full mask are the plain operations; g++ 12
// warns about uninitialised registers inside the others.
struct Vec {
  __m512 v;
};
inline constexpr int kGemmRows = 12;
inline constexpr int kGemmVectors = 2;
inline constexpr int kSums = 16;                // accumulators that fit beside the operands
inline constexpr int kWide = 16;                // and where each is used once per operand
inline constexpr bool kPlainBroadcasts = true;  // worth asking the CPU
inline constexpr __mmask16 kAll = 0xffff;

ZEROMERGE_INLINE Vec zero() { return {_mm512_setzero_ps()}; }
ZEROMERGE_INLINE Vec set1(float x) { return {_mm512_set1_ps(x)}; }
ZEROMERGE_INLINE Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
ZEROMERGE_INLINE void store(float* p, Vec x) { _mm512_storeu_ps(p, x.v); }
ZEROMERGE_INLINE Vec add(Vec x, Vec y) { return {_mm512_add_ps(x.v, y.v)}; }
ZEROMERGE_INLINE Vec sub(Vec x, Vec y) { return {_mm512_sub_ps(x.v, y.v)}; }
ZEROMERGE_INLINE Vec mul(Vec x, Vec y) { return {_mm512_mul_ps(x.v, y.v)}; }
ZEROMERGE_INLINE Vec fma(Vec x, Vec y, Vec z) { return {_mm512_fmadd_ps(x.v, y.v, z.v)}; }
// z + x * *f with the broadcast inside the instruction. Compilers broadcast into a register where a factor is
// used more than once, which competes with the conversions for the same ports: a quarter slower on Zen 4.
ZEROMERGE_INLINE Vec fma_broadcast(Vec x, const float* f, Vec z) {
  asm("vfmadd231ps {%2%{1to16%}, %1, %0|%0, %1, %2%{1to16%}}" : "+v"(z.v) : "v"(x.v), "m"(*f));
  return z;
}
ZEROMERGE_INLINE Vec max(Vec x, Vec y) { return {_mm512_maskz_max_ps(kAll, x.v, y.v)}; }
ZEROMERGE_INLINE __m256 low_half(Vec x) { return _mm512_maskz_extractf32x8_ps(0xff, x.v, 0); }
ZEROMERGE_INLINE __m256 high_half(Vec x) { return _mm512_maskz_extractf32x8_ps(0xff, x.v, 1); }
ZEROMERGE_INLINE float reduce_add(Vec x) {
  const __m256 s = _mm256_add_ps(low_half(x), high_half(x));
  __m128 q = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
  q = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(q, _mm_shuffle_ps(q, q, 1)));
}
ZEROMERGE_INLINE float reduce_max(Vec x) {
  const __m256 s = _mm256_max_ps(low_half(x), high_half(x));
  __m128 q = _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
  q = _mm_max_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_max_ss(q, _mm_shuffle_ps(q, q, 1)));
}

ZEROMERGE_INLINE Vec div(Vec x, Vec y) { return {_mm512_div_ps(x.v, y.v)}; }
ZEROMERGE_INLINE Vec min(Vec x, Vec y) { return {_mm512_maskz_min_ps(kAll, x.v, y.v)}; }

// 2^x for x up to 126, far below 0 exactly 0. Relative error below 2e-7: minimax of degree 5 on [-1/2, 1/2].
ZEROMERGE_INLINE Vec exp2(Vec x) {
  const __m512 n = _mm512_maskz_roundscale_ps(kAll, x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 r = _mm512_sub_ps(x.v, n);
  __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(1.32764722e-3f), r, _mm512_set1_ps(9.67554133e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.55071327e-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.40221197e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.93146967e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return {_mm512_maskz_scalef_ps(kAll, p, n)};
}

template <class T>
ZEROMERGE_INLINE Vec load_as(const T* p);
template <>
ZEROMERGE_INLINE Vec load_as<float>(const float* p) {
  return load(p);
}
template <>
ZEROMERGE_INLINE Vec load_as<f16>(const f16* p) {
  return {_mm512_maskz_cvtph_ps(kAll, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
template <>
ZEROMERGE_INLINE Vec load_as<bf16>(const bf16* p) {
  const __m512i wide =
      _mm512_maskz_cvtepu16_epi32(kAll, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return {_mm512_castsi512_ps(_mm512_maskz_slli_epi32(kAll, wide, 16))};
}

// A vector of 16 lanes with pack neighbours each, as pack vectors.
template <class T>
ZEROMERGE_INLINE void load_pack(const stored<T>* p, Vec* part) {
  part[0] = load_as<T>(p);
}
template <>
ZEROMERGE_INLINE void load_pack<bf16>(const bf16* p, Vec* part) {
  const __m512i x = _mm512_loadu_si512(p);
  part[0] = {_mm512_castsi512_ps(_mm512_maskz_slli_epi32(kAll, x, 16))};
  part[1] = {_mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32(static_cast<int>(0xffff0000u))))};
}
template <>
ZEROMERGE_INLINE void load_pack<q8>(const std::uint8_t* p, Vec* part) {
  const __m512i x = _mm512_xor_si512(_mm512_loadu_si512(p), _mm512_set1_epi32(static_cast<int>(0x80808080u)));
  const auto wide = [](__m512i y) {
    return Vec{_mm512_maskz_cvtepi32_ps(kAll, _mm512_maskz_srai_epi32(kAll, y, 24))};
  };
  part[0] = wide(_mm512_maskz_slli_epi32(kAll, x, 24));
  part[1] = wide(_mm512_maskz_slli_epi32(kAll, x, 16));
  part[2] = wide(_mm512_maskz_slli_epi32(kAll, x, 8));
  part[3] = wide(x);
}
// Four bits of each of 16 words of 32.
template <int Shift>
ZEROMERGE_INLINE Vec nibbles(const unsigned char* p) {
  const __m512i x = _mm512_maskz_srli_epi32(kAll, _mm512_loadu_si512(p), Shift);
  return {_mm512_maskz_cvtepi32_ps(kAll, _mm512_and_si512(x, _mm512_set1_epi32(15)))};
}

template <class T>
ZEROMERGE_INLINE void store_as(T* p, Vec v) {
  alignas(64) float x[16];
  store(x, v);
  for (int i = 0; i < 16; ++i) p[i] = from_f32<T>(x[i]);
}
template <>
ZEROMERGE_INLINE void store_as<float>(float* p, Vec v) {
  store(p, v);
}
template <>
ZEROMERGE_INLINE void store_as<f16>(f16* p, Vec v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_maskz_cvtps_ph(kAll, v.v, _MM_FROUND_TO_NEAREST_INT));
}
