// Sixteen floats as two AVX registers.
struct Vec {
  __m256 a, b;
};
inline constexpr int kGemmRows = 6;
inline constexpr int kGemmVectors = 1;
inline constexpr int kSums = 4;  // accumulators (of two registers) that fit beside the operands
inline constexpr int kWide = 4;
inline constexpr bool kPlainBroadcasts = false;  // worth asking the CPU

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
ZEROMERGE_INLINE Vec fma_broadcast(Vec x, const float* f, Vec z) { return fma(x, set1(*f), z); }
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

ZEROMERGE_INLINE Vec div(Vec x, Vec y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
ZEROMERGE_INLINE Vec min(Vec x, Vec y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }

ZEROMERGE_INLINE __m256 exp2_half(__m256 x) {
  const __m256 alive = _mm256_cmp_ps(x, _mm256_set1_ps(-126.0f), _CMP_GE_OQ);
  x = _mm256_max_ps(x, _mm256_set1_ps(-126.0f));
  const __m256 n = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m256 r = _mm256_sub_ps(x, n);
  __m256 p = _mm256_fmadd_ps(_mm256_set1_ps(1.32764722e-3f), r, _mm256_set1_ps(9.67554133e-3f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(5.55071327e-2f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(2.40221197e-1f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(6.93146967e-1f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
  const __m256i power =
      _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  return _mm256_and_ps(_mm256_mul_ps(p, _mm256_castsi256_ps(power)), alive);
}
// 2^x for x up to 126, below -126 exactly 0. Relative error below 2e-7: minimax of degree 5 on [-1/2, 1/2].
ZEROMERGE_INLINE Vec exp2(Vec x) { return {exp2_half(x.a), exp2_half(x.b)}; }

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

// A vector of 16 lanes with pack neighbours each, as pack vectors.
template <class T>
ZEROMERGE_INLINE void load_pack(const stored<T>* p, Vec* part) {
  part[0] = load_as<T>(p);
}
template <>
ZEROMERGE_INLINE void load_pack<bf16>(const bf16* p, Vec* part) {
  const auto* m = reinterpret_cast<const __m256i*>(p);
  const __m256i x = _mm256_loadu_si256(m);
  const __m256i y = _mm256_loadu_si256(m + 1);
  const __m256i high = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
  part[0] = {_mm256_castsi256_ps(_mm256_slli_epi32(x, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(y, 16))};
  part[1] = {_mm256_castsi256_ps(_mm256_and_si256(x, high)), _mm256_castsi256_ps(_mm256_and_si256(y, high))};
}
ZEROMERGE_INLINE __m256 wide(__m256i x) { return _mm256_cvtepi32_ps(_mm256_srai_epi32(x, 24)); }
template <>
ZEROMERGE_INLINE void load_pack<q8>(const std::uint8_t* p, Vec* part) {
  const auto* m = reinterpret_cast<const __m256i*>(p);
  const __m256i sign = _mm256_set1_epi32(static_cast<int>(0x80808080u));
  const __m256i x = _mm256_xor_si256(_mm256_loadu_si256(m), sign);
  const __m256i y = _mm256_xor_si256(_mm256_loadu_si256(m + 1), sign);
  part[0] = {wide(_mm256_slli_epi32(x, 24)), wide(_mm256_slli_epi32(y, 24))};
  part[1] = {wide(_mm256_slli_epi32(x, 16)), wide(_mm256_slli_epi32(y, 16))};
  part[2] = {wide(_mm256_slli_epi32(x, 8)), wide(_mm256_slli_epi32(y, 8))};
  part[3] = {wide(x), wide(y)};
}
ZEROMERGE_INLINE __m256 low_nibbles(__m256i x) {
  return _mm256_cvtepi32_ps(_mm256_and_si256(x, _mm256_set1_epi32(15)));
}
// Four bits of each of 16 words of 32.
template <int Shift>
ZEROMERGE_INLINE Vec nibbles(const unsigned char* p) {
  const auto* m = reinterpret_cast<const __m256i*>(p);
  return {low_nibbles(_mm256_srli_epi32(_mm256_loadu_si256(m), Shift)),
          low_nibbles(_mm256_srli_epi32(_mm256_loadu_si256(m + 1), Shift))};
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
