// Sixteen floats as one AVX-512 register. The maskz forms with a full mask are the plain operations; g++ 12
// warns about uninitialised registers inside the others.
struct Vec {
  __m512 v;
};
inline constexpr int kGemmRows = 8;
inline constexpr int kGemmVectors = 2;
inline constexpr int kDotBudget = 8;
inline constexpr __mmask16 kAll = 0xffff;

ZEROMERGE_INLINE Vec zero() { return {_mm512_setzero_ps()}; }
ZEROMERGE_INLINE Vec set1(float x) { return {_mm512_set1_ps(x)}; }
ZEROMERGE_INLINE Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
ZEROMERGE_INLINE void store(float* p, Vec x) { _mm512_storeu_ps(p, x.v); }
ZEROMERGE_INLINE Vec add(Vec x, Vec y) { return {_mm512_add_ps(x.v, y.v)}; }
ZEROMERGE_INLINE Vec sub(Vec x, Vec y) { return {_mm512_sub_ps(x.v, y.v)}; }
ZEROMERGE_INLINE Vec mul(Vec x, Vec y) { return {_mm512_mul_ps(x.v, y.v)}; }
ZEROMERGE_INLINE Vec fma(Vec x, Vec y, Vec z) { return {_mm512_fmadd_ps(x.v, y.v, z.v)}; }
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

// exp for x <= 0.5 or so; below -87 exactly 0. Relative error about 2e-7: r in [-ln2/2, ln2/2], degree 7 in
// all.
ZEROMERGE_INLINE Vec exp(Vec x) {
  const __mmask16 alive = _mm512_cmp_ps_mask(x.v, _mm512_set1_ps(-87.0f), _CMP_GT_OQ);
  const __m512 n = _mm512_maskz_roundscale_ps(alive, _mm512_mul_ps(x.v, _mm512_set1_ps(1.44269504f)),
                                              _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693145752f), x.v);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(1.42860677e-6f), r);
  __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(1.98756915e-4f), r, _mm512_set1_ps(1.39819995e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.33345191e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795e-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
  p = _mm512_fmadd_ps(_mm512_mul_ps(p, r), r, _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
  return {_mm512_maskz_scalef_ps(alive, p, n)};
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

// Sixteen pairs of 16-bit elements: the even and the odd ones.
template <class T>
ZEROMERGE_INLINE void load_pair(const T* p, Vec& even, Vec& odd);
template <>
ZEROMERGE_INLINE void load_pair<float>(const float* p, Vec& even, Vec& odd) {
  even = load(p);
  odd = load(p + 16);
}
template <>
ZEROMERGE_INLINE void load_pair<f16>(const f16* p, Vec& even, Vec& odd) {
  const __m512i x = _mm512_loadu_si512(p);
  even = {_mm512_maskz_cvtph_ps(kAll, _mm512_maskz_cvtepi32_epi16(kAll, x))};
  odd = {
      _mm512_maskz_cvtph_ps(kAll, _mm512_maskz_cvtepi32_epi16(kAll, _mm512_maskz_srli_epi32(kAll, x, 16)))};
}
template <>
ZEROMERGE_INLINE void load_pair<bf16>(const bf16* p, Vec& even, Vec& odd) {
  const __m512i x = _mm512_loadu_si512(p);
  even = {_mm512_castsi512_ps(_mm512_maskz_slli_epi32(kAll, x, 16))};
  odd = {_mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32(static_cast<int>(0xffff0000u))))};
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
