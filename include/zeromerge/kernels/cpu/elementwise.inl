// Passes over plain arrays: conversion of rows, the score update, the search for the least, dot products.

// to[i] = from[i] * factor as f32, n elements.
template <class T>
inline void widen(const T* from, std::size_t n, float factor, float* to) {
  const Vec f = set1(factor);
  std::size_t i = 0;
  for (; i + 16 <= n; i += 16) store(to + i, mul(load_as<T>(from + i), f));
  for (; i < n; ++i) to[i] = to_f32(from[i]) * factor;
}

// to[i] = from[i] rounded to T, n elements.
template <class T>
inline void narrow(const float* from, std::size_t n, T* to) {
  std::size_t i = 0;
  for (; i + 16 <= n; i += 16) store_as<T>(to + i, load(from + i));
  for (; i < n; ++i) to[i] = from_f32<T>(from[i]);
}

// Partial results of one segment, scaled to the whole row: out[d] (+)= factor * part[d].
inline void add_scaled(const float* part, float factor, std::size_t n, float* out, bool first) {
  const Vec f = set1(factor);
  for (std::size_t d = 0; d < n; d += 16)
    store(out + d, first ? mul(load(part + d), f) : fma(load(part + d), f, load(out + d)));
}

// score[j] = score[j] * decay + sum over g of p[g][j] * factor[g], n entries (arrays padded to 16).
inline void decay_and_add(float* score, std::size_t n, float decay, const float* p, std::size_t p_stride,
                          const float* factor, std::size_t group) {
  for (std::size_t j = 0; j < n; j += 16) {
    Vec s = mul(load(score + j), set1(decay));
    for (std::size_t g = 0; g < group; ++g) s = fma(load(p + g * p_stride + j), set1(factor[g]), s);
    store(score + j, s);
  }
}

inline float dot(const float* x, const float* y, std::size_t n) {
  Vec sum = zero();
  std::size_t i = 0;
  for (; i + 16 <= n; i += 16) sum = fma(load(x + i), load(y + i), sum);
  float s = reduce_add(sum);
  for (; i < n; ++i) s += x[i] * y[i];
  return s;
}

// The largest of n bit patterns without their sign: of floats, the one of the largest magnitude, NaN above
// all. W: what a pattern is stored as. On integers, because compilers may assume that there are no NaN.
template <class W>
inline W largest_magnitude(const W* x, std::size_t n) {
  using Signed = std::make_signed_t<W>;
  typedef Signed Many __attribute__((vector_size(64), may_alias, aligned(sizeof(W))));
  constexpr std::size_t kLanes = 64 / sizeof(W);
  constexpr W kMagnitude = static_cast<W>(~W{0}) >> 1;
  Many top{};
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Many y = *reinterpret_cast<const Many*>(x + i) & static_cast<Signed>(kMagnitude);
    top = y > top ? y : top;
  }
  W most = 0;
  for (std::size_t k = 0; k < kLanes; ++k) most = std::max(most, static_cast<W>(top[k]));
  for (; i < n; ++i) most = std::max(most, static_cast<W>(x[i] & kMagnitude));
  return most;
}
