// Sixteen floats as four of the compiler's own vectors: SSE2 on any x86-64, NEON on aarch64.
typedef float Quad __attribute__((vector_size(16)));
typedef std::int32_t QuadInt __attribute__((vector_size(16)));
struct Vec {
  Quad r[4];
};
inline constexpr int kGemmRows = 2;  // rows x vectors of accumulators of the matrix product
inline constexpr int kGemmVectors = 1;
inline constexpr int kSums = 1;  // accumulators (of four registers) that fit beside the operands
inline constexpr int kWide = 1;
inline constexpr bool kPlainBroadcasts = false;  // worth asking the CPU

ZEROMERGE_INLINE Quad quad(float x) { return Quad{x, x, x, x}; }
ZEROMERGE_INLINE Vec set1(float x) { return {{quad(x), quad(x), quad(x), quad(x)}}; }
ZEROMERGE_INLINE Vec zero() { return set1(0.0f); }
ZEROMERGE_INLINE Vec load(const float* p) {
  Vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
ZEROMERGE_INLINE void store(float* p, Vec v) { std::memcpy(p, &v, sizeof v); }
ZEROMERGE_INLINE Vec add(Vec a, Vec b) {
  return {{a.r[0] + b.r[0], a.r[1] + b.r[1], a.r[2] + b.r[2], a.r[3] + b.r[3]}};
}
ZEROMERGE_INLINE Vec sub(Vec a, Vec b) {
  return {{a.r[0] - b.r[0], a.r[1] - b.r[1], a.r[2] - b.r[2], a.r[3] - b.r[3]}};
}
ZEROMERGE_INLINE Vec mul(Vec a, Vec b) {
  return {{a.r[0] * b.r[0], a.r[1] * b.r[1], a.r[2] * b.r[2], a.r[3] * b.r[3]}};
}
ZEROMERGE_INLINE Vec fma(Vec a, Vec b, Vec c) { return add(mul(a, b), c); }
ZEROMERGE_INLINE Vec fma_broadcast(Vec x, const float* f, Vec z) { return fma(x, set1(*f), z); }
ZEROMERGE_INLINE Quad choose(QuadInt mask, Quad yes, Quad no) {
  return std::bit_cast<Quad>((mask & std::bit_cast<QuadInt>(yes)) | (~mask & std::bit_cast<QuadInt>(no)));
}
ZEROMERGE_INLINE Vec max(Vec a, Vec b) {
  return {{choose(a.r[0] > b.r[0], a.r[0], b.r[0]), choose(a.r[1] > b.r[1], a.r[1], b.r[1]),
           choose(a.r[2] > b.r[2], a.r[2], b.r[2]), choose(a.r[3] > b.r[3], a.r[3], b.r[3])}};
}
ZEROMERGE_INLINE float reduce_add(Vec v) {
  const Quad s = (v.r[0] + v.r[1]) + (v.r[2] + v.r[3]);
  return (s[0] + s[1]) + (s[2] + s[3]);
}
ZEROMERGE_INLINE float reduce_max(Vec v) {
  float m = v.r[0][0];
  for (const Quad& q : v.r)
    for (int i = 0; i < 4; ++i) m = q[i] > m ? q[i] : m;
  return m;
}

ZEROMERGE_INLINE Vec div(Vec a, Vec b) {
  return {{a.r[0] / b.r[0], a.r[1] / b.r[1], a.r[2] / b.r[2], a.r[3] / b.r[3]}};
}
ZEROMERGE_INLINE Vec min(Vec a, Vec b) {
  return {{choose(a.r[0] < b.r[0], a.r[0], b.r[0]), choose(a.r[1] < b.r[1], a.r[1], b.r[1]),
           choose(a.r[2] < b.r[2], a.r[2], b.r[2]), choose(a.r[3] < b.r[3], a.r[3], b.r[3])}};
}

// 2^x for x up to 126, below -126 exactly 0. Rounding by adding and taking away 1.5 * 2^23, whose unit is 1.
ZEROMERGE_INLINE Quad exp2_quad(Quad x) {
  const QuadInt alive = x >= quad(-126.0f);
  x = choose(alive, x, quad(-126.0f));
  const QuadInt n = std::bit_cast<QuadInt>(x + quad(12582912.0f)) - 0x4b400000;
  const Quad r = x - __builtin_convertvector(n, Quad);
  Quad p = quad(1.32764722e-3f) * r + quad(9.67554133e-3f);
  p = p * r + quad(5.55071327e-2f);
  p = p * r + quad(2.40221197e-1f);
  p = p * r + quad(6.93146967e-1f);
  p = p * r + quad(1.0f);
  return choose(alive, p * std::bit_cast<Quad>((n + 127) << 23), quad(0.0f));
}
ZEROMERGE_INLINE Vec exp2(Vec x) {
  return {{exp2_quad(x.r[0]), exp2_quad(x.r[1]), exp2_quad(x.r[2]), exp2_quad(x.r[3])}};
}

ZEROMERGE_INLINE Quad quad_of(const f16* p, std::size_t step) {
  QuadInt h = {p[0].bits, p[step].bits, p[2 * step].bits, p[3 * step].bits};
  const QuadInt sign = (h & 0x8000) << 16;
  const QuadInt magnitude = (h & 0x7fff) << 13;
  const Quad scaled = std::bit_cast<Quad>(magnitude) * quad(std::bit_cast<float>(0x77800000u));
  return std::bit_cast<Quad>(std::bit_cast<QuadInt>(scaled) | sign);
}
ZEROMERGE_INLINE Quad quad_of(const bf16* p, std::size_t step) {
  QuadInt h = {p[0].bits, p[step].bits, p[2 * step].bits, p[3 * step].bits};
  return std::bit_cast<Quad>(h << 16);
}
template <class T>
ZEROMERGE_INLINE Vec load_as(const T* p) {
  return {{quad_of(p, 1), quad_of(p + 4, 1), quad_of(p + 8, 1), quad_of(p + 12, 1)}};
}
template <>
ZEROMERGE_INLINE Vec load_as<float>(const float* p) {
  return load(p);
}
// A vector of 16 lanes with pack neighbours each, as pack vectors.
template <class T>
ZEROMERGE_INLINE void load_pack(const stored<T>* p, Vec* part) {
  part[0] = load_as<T>(p);
}
template <>
ZEROMERGE_INLINE void load_pack<bf16>(const bf16* p, Vec* part) {
  part[0] = {{quad_of(p, 2), quad_of(p + 8, 2), quad_of(p + 16, 2), quad_of(p + 24, 2)}};
  part[1] = {{quad_of(p + 1, 2), quad_of(p + 9, 2), quad_of(p + 17, 2), quad_of(p + 25, 2)}};
}
ZEROMERGE_INLINE QuadInt words(const unsigned char* p) {
  QuadInt x;
  std::memcpy(&x, p, sizeof x);
  return x;
}
template <>
ZEROMERGE_INLINE void load_pack<q8>(const std::uint8_t* p, Vec* part) {
  for (int i = 0; i < 4; ++i) {
    const QuadInt x = words(p + 16 * i);
    part[0].r[i] = __builtin_convertvector((x & 255) - 128, Quad);
    part[1].r[i] = __builtin_convertvector((x >> 8 & 255) - 128, Quad);
    part[2].r[i] = __builtin_convertvector((x >> 16 & 255) - 128, Quad);
    part[3].r[i] = __builtin_convertvector((x >> 24 & 255) - 128, Quad);
  }
}
// Four bits of each of 16 words of 32.
template <int Shift>
ZEROMERGE_INLINE Vec nibbles(const unsigned char* p) {
  Vec v;
  for (int i = 0; i < 4; ++i) v.r[i] = __builtin_convertvector(words(p + 16 * i) >> Shift & 15, Quad);
  return v;
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
