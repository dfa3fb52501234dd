// Sixteen floats as two AVX registers.
struct Vec {
  __m256 a, b;
};
inline constexpr int kGemmRows = 6;
inline constexpr int kGemmVectors = 1;
inline constexpr int kDotBudget = 4;

ZEROMERGE_INLINE Vec zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
ZEROMERGE_INLINE Vec set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
ZEROMERGE_INLINE Vec load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
ZEROMERGE_INLINE void store(float* p, Vec v) {
  _mm256_storeu_ps(p, v.a);
  _mm256_storeu_ps(p + 8, v.b);
}
ZEROMERGE_INLINE Vec add(Vec x, Vec y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
ZEROMERGE_INLINE Vec sub(Vec x, Vec y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
ZEROMERGE_INLINE Vec mul(Vec x, Vec y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
ZEROMERGE_INLINE Vec fma(Vec x, Vec y, Vec z) {
  return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
ZEROMERGE_INLINE Vec max(Vec x, Vec y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
ZEROMERGE_INLINE float reduce_add(Vec v) {
  const __m256 s = _mm256_add_ps(v.a, v.b);
  __m128 q = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
  q = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(q, _mm_shuffle_ps(q, q, 1)));
}
ZEROMERGE_INLINE float reduce_max(Vec v) {
  const __m256 s = _mm256_max_ps(v.a, v.b);
  __m128 q = _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
  q = _mm_max_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_max_ss(q, _mm_shuffle_ps(q, q, 1)));
}

ZEROMERGE_INLINE __m256 exp_half(__m256 x) {
  const __m256 alive = _mm256_cmp_ps(x, _mm256_set1_ps(-87.0f), _CMP_GT_OQ);
  x = _mm256_max_ps(x, _mm256_set1_ps(-87.0f));
  const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)),
                                   _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693145752f), x);
  r = _mm256_fnmadd_ps(n, _mm256_set1_ps(1.42860677e-6f), r);
  __m256 p = _mm256_fmadd_ps(_mm256_set1_ps(1.98756915e-4f), r, _mm256_set1_ps(1.39819995e-3f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(8.33345191e-3f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(4.1665795e-2f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.6666665e-1f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
  p = _mm256_fmadd_ps(_mm256_mul_ps(p, r), r, _mm256_add_ps(r, _mm256_set1_ps(1.0f)));
  const __m256i power =
      _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  return _mm256_and_ps(_mm256_mul_ps(p, _mm256_castsi256_ps(power)), alive);
}
// exp for x <= 0.5 or so; below -87 exactly 0. Relative error about 2e-7: r in [-ln2/2, ln2/2], degree 7 in
// all.
ZEROMERGE_INLINE Vec exp(Vec x) { return {exp_half(x.a), exp_half(x.b)}; }

template <class T>
ZEROMERGE_INLINE Vec load_as(const T* p);
template <>
ZEROMERGE_INLINE Vec load_as<float>(const float* p) {
  return load(p);
}
template <>
ZEROMERGE_INLINE Vec load_as<f16>(const f16* p) {
  const auto* m = reinterpret_cast<const __m128i*>(p);
  return {_mm256_cvtph_ps(_mm_loadu_si128(m)), _mm256_cvtph_ps(_mm_loadu_si128(m + 1))};
}
template <>
ZEROMERGE_INLINE Vec load_as<bf16>(const bf16* p) {
  const auto* m = reinterpret_cast<const __m128i*>(p);
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(m)), 16)),
          _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(m + 1)), 16))};
}

// Sixteen pairs of 16-bit elements: the even and the odd ones.
template <class T>
ZEROMERGE_INLINE void load_pair(const T* p, Vec& even, Vec& odd);
template <>
ZEROMERGE_INLINE void load_pair<float>(const float* p, Vec& even, Vec& odd) {
  even = load(p);
  odd = load(p + 16);
}
// Gathers the low and the high halves of eight 32-bit lanes into one register of 16-bit values, in lane
// order.
ZEROMERGE_INLINE void split_pairs(__m256i x, __m128i& low, __m128i& high) {
  const __m256i order = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15,  //
                                         0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
  const __m256i s = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(x, order), 0xd8);
  low = _mm256_castsi256_si128(s);
  high = _mm256_extracti128_si256(s, 1);
}
template <>
ZEROMERGE_INLINE void load_pair<f16>(const f16* p, Vec& even, Vec& odd) {
  const auto* m = reinterpret_cast<const __m256i*>(p);
  __m128i low0, high0, low1, high1;
  split_pairs(_mm256_loadu_si256(m), low0, high0);
  split_pairs(_mm256_loadu_si256(m + 1), low1, high1);
  even = {_mm256_cvtph_ps(low0), _mm256_cvtph_ps(low1)};
  odd = {_mm256_cvtph_ps(high0), _mm256_cvtph_ps(high1)};
}
template <>
ZEROMERGE_INLINE void load_pair<bf16>(const bf16* p, Vec& even, Vec& odd) {
  const auto* m = reinterpret_cast<const __m256i*>(p);
  const __m256i x = _mm256_loadu_si256(m);
  const __m256i y = _mm256_loadu_si256(m + 1);
  const __m256i high = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
  even = {_mm256_castsi256_ps(_mm256_slli_epi32(x, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(y, 16))};
  odd = {_mm256_castsi256_ps(_mm256_and_si256(x, high)), _mm256_castsi256_ps(_mm256_and_si256(y, high))};
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
  auto* m = reinterpret_cast<__m128i*>(p);
  _mm_storeu_si128(m, _mm256_cvtps_ph(v.a, _MM_FROUND_TO_NEAREST_INT));
  _mm_storeu_si128(m + 1, _mm256_cvtps_ph(v.b, _MM_FROUND_TO_NEAREST_INT));
}
