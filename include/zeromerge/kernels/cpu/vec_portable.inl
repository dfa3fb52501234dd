// Sixteen floats as four of the compiler's own vectors: SSE2 on any x86-64, NEON on aarch64.
typedef float Quad __attribute__((vector_size(16)));
typedef std::int32_t QuadInt __attribute__((vector_size(16)));
struct Vec {
  Quad r[4];
};
inline constexpr int kGemmRows = 2;  // rows x vectors of accumulators of the matrix product
inline constexpr int kGemmVectors = 1;
inline constexpr int kDotBudget =
    1;  // vectors of accumulators of the logits kernel beyond which tiles are not paired

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

// exp for x <= 0.5 or so; below -87 exactly 0. See exp in the other levels for the polynomial.
ZEROMERGE_INLINE Quad exp_quad(Quad x) {
  const QuadInt alive = x > quad(-87.0f);
  x = choose(alive, x, quad(-87.0f));
  const QuadInt n = __builtin_convertvector(x * quad(1.44269504f) - quad(0.5f), QuadInt);
  const Quad nf = __builtin_convertvector(n, Quad);
  const Quad r = (x - nf * quad(0.693145752f)) - nf * quad(1.42860677e-6f);
  Quad p = quad(1.98756915e-4f) * r + quad(1.39819995e-3f);
  p = p * r + quad(8.33345191e-3f);
  p = p * r + quad(4.1665795e-2f);
  p = p * r + quad(1.6666665e-1f);
  p = p * r + quad(0.5f);
  p = p * r * r + r + quad(1.0f);
  const Quad power = std::bit_cast<Quad>((n + 127) << 23);
  return choose(alive, p * power, quad(0.0f));
}
ZEROMERGE_INLINE Vec exp(Vec x) {
  return {{exp_quad(x.r[0]), exp_quad(x.r[1]), exp_quad(x.r[2]), exp_quad(x.r[3])}};
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
template <class T>
ZEROMERGE_INLINE void load_pair(const T* p, Vec& even, Vec& odd) {
  even = {{quad_of(p, 2), quad_of(p + 8, 2), quad_of(p + 16, 2), quad_of(p + 24, 2)}};
  odd = {{quad_of(p + 1, 2), quad_of(p + 9, 2), quad_of(p + 17, 2), quad_of(p + 25, 2)}};
}
template <>
ZEROMERGE_INLINE void load_pair<float>(const float* p, Vec& even, Vec& odd) {
  even = load(p);
  odd = load(p + 16);
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
