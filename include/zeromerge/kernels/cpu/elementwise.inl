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

// The position of the least of n numbers (at least 1), the lowest of equal ones.
inline std::size_t least(const float* x, std::size_t n) {
  typedef float Floats __attribute__((vector_size(64), may_alias, aligned(4)));
  typedef std::int32_t Ints __attribute__((vector_size(64)));
  Floats best = Floats{} + std::numeric_limits<float>::max();
  Ints at{}, now = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  std::size_t i = 0;
  for (; i + 16 <= n; i += 16, now += 16) {
    const Floats y = *reinterpret_cast<const Floats*>(x + i);
    const Ints smaller = y < best;
    best = smaller ? y : best;
    at = smaller ? now : at;
  }
  float value = x[0];
  std::size_t place = 0;
  for (std::size_t k = 0; k < 16; ++k) {
    const auto j = static_cast<std::size_t>(at[k]);
    if (!(best[k] < value || (best[k] == value && j < place))) continue;
    value = best[k];
    place = j;
  }
  for (; i < n; ++i)
    if (x[i] < value) value = x[place = i];
  return place;
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

// A row of 8 bits with one scale: x ~ scale * q, q in [-127, 127], stored as q + 128. Returns the scale; 0
// for a row of zeros, or of numbers so small that their scale is not a normal number and cannot be divided
// by.
inline float encode_q8(const float* x, std::size_t n, std::uint8_t* q) {
  typedef float Floats __attribute__((vector_size(64), may_alias, aligned(4)));
  typedef std::int32_t Ints __attribute__((vector_size(64)));
  typedef std::uint8_t Bytes __attribute__((vector_size(16)));
  // Adding 1.5 * 2^23 to a number below 2^22 leaves no room for a fraction: its last bits are the nearest
  // whole number.
  constexpr float kWhole = 12582912.0f;
  constexpr std::int32_t kWholeBits = 0x4b400000;
  const float largest = std::bit_cast<float>(largest_magnitude(reinterpret_cast<const std::uint32_t*>(x), n));
  const float scale = largest / 127.0f;
  const float inverse = scale >= 1.2e-38f ? 1.0f / scale : 0.0f;
  std::size_t d = 0;
  for (; d + 16 <= n; d += 16) {
    const Floats y = *reinterpret_cast<const Floats*>(x + d) * inverse + kWhole;
    const Bytes bytes = __builtin_convertvector((Ints)y - (kWholeBits - 128), Bytes);
    std::memcpy(q + d, &bytes, sizeof bytes);
  }
  for (; d < n; ++d)
    q[d] =
        static_cast<std::uint8_t>(std::bit_cast<std::int32_t>(x[d] * inverse + kWhole) - (kWholeBits - 128));
  return inverse > 0.0f ? scale : 0.0f;
}

inline void decode_q8(const std::uint8_t* q, std::size_t n, float scale, float* x) {
  typedef float Floats __attribute__((vector_size(64)));
  typedef std::uint8_t Bytes __attribute__((vector_size(16)));
  std::size_t d = 0;
  for (; d + 16 <= n; d += 16) {
    Bytes bytes;
    std::memcpy(&bytes, q + d, sizeof bytes);
    const Floats y = (__builtin_convertvector(bytes, Floats) - 128.0f) * scale;
    std::memcpy(x + d, &y, sizeof y);
  }
  for (; d < n; ++d) x[d] = (static_cast<float>(q[d]) - 128.0f) * scale;
}
