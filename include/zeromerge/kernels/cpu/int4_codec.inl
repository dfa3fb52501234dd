// Rows into and out of q4 groups (layout.hpp): x ~ minimum + scale * code, code in [0, 15], scale and minimum
// in f16. The grid's ends are f16, and it covers what it can.

// The first n (at most 16) of p; the others repeat the last, so that they move no end of a grid.
ZEROMERGE_INLINE Vec load_some(const float* p, std::size_t n) {
  if (n >= 16) return load(p);
  alignas(64) float x[16];
  for (std::size_t i = 0; i < 16; ++i) x[i] = p[std::min(i, n - 1)];
  return load(x);
}
ZEROMERGE_INLINE void store_some(float* p, Vec v, std::size_t n) {
  if (n >= 16) return store(p, v);
  alignas(64) float x[16];
  store(x, v);
  std::copy_n(x, n, p);
}

// The grid from low to high, as f16 at scale and minimum.
ZEROMERGE_INLINE void lay_grid(Vec low, Vec high, f16* scale, f16* minimum) {
  store_as<f16>(minimum, low);
  store_as<f16>(scale, div(sub(high, load_as<f16>(minimum)), set1(15.0f)));
}

// The nearest codes, halves to even. A scale of 0 has one value, whatever the code.
ZEROMERGE_INLINE void codes_of(Vec x, Vec scale, Vec minimum, std::uint32_t* code) {
  const Vec steps = div(sub(x, minimum), max(scale, set1(1e-30f)));
  alignas(64) float whole[16];
  store(whole, add(min(max(steps, zero()), set1(15.0f)), set1(12582912.0f)));  // see encode_q8
  std::memcpy(code, whole, sizeof whole);
  for (std::size_t i = 0; i < 16; ++i) code[i] &= 15;
}

// A group of keys from 32 rows [32][stride] of which n channels count.
inline void encode_q4_keys(const float* rows, std::size_t stride, std::size_t n, std::size_t dims,
                           unsigned char* group) {
  auto* scale = reinterpret_cast<f16*>(group + dims * kGroup / 2);
  f16* minimum = scale + dims;
  for (std::size_t d = 0; d < n; d += 16) {
    Vec low = load_some(rows + d, n - d), high = low;
    for (std::size_t j = 1; j < kGroup; ++j) {
      const Vec x = load_some(rows + j * stride + d, n - d);
      low = min(low, x);
      high = max(high, x);
    }
    lay_grid(low, high, scale + d, minimum + d);
    const Vec s = load_as<f16>(scale + d), m = load_as<f16>(minimum + d);
    for (std::size_t j = 0; j < kTile; ++j) {
      alignas(64) std::uint32_t first[16], second[16];
      codes_of(load_some(rows + j * stride + d, n - d), s, m, first);
      codes_of(load_some(rows + (j + kTile) * stride + d, n - d), s, m, second);
      unsigned char bytes[16];
      for (std::size_t i = 0; i < 16; ++i) bytes[i] = static_cast<unsigned char>(first[i] | second[i] << 4);
      for (std::size_t quad = 0; quad < 4; ++quad)
        std::memcpy(group + (d / 4 + quad) * 64 + j * 4, bytes + quad * 4, 4);
    }
  }
}

inline void decode_q4_key(const unsigned char* group, std::size_t n, std::size_t dims, std::size_t entry,
                          float* out) {
  const auto* scale = reinterpret_cast<const f16*>(group + dims * kGroup / 2);
  const std::size_t shift = entry / kTile * 4;
  for (std::size_t d = 0; d < n; d += 16) {
    unsigned char bytes[16];
    for (std::size_t quad = 0; quad < 4; ++quad)
      std::memcpy(bytes + quad * 4, group + (d / 4 + quad) * 64 + entry % kTile * 4, 4);
    alignas(64) float code[16];
    for (std::size_t i = 0; i < 16; ++i) code[i] = static_cast<float>(bytes[i] >> shift & 15);
    store_some(out + d, fma(load(code), load_as<f16>(scale + d), load_as<f16>(scale + dims + d)), n - d);
  }
}

// Channel Place of four: a grid for the 32 entries as they are, but x at `entry`.
template <int Place>
inline void lay_channel(unsigned char* quad, f16* scale, f16* minimum, std::size_t entry, float x) {
  alignas(64) float value[2][16];
  store(value[0], fma(nibbles<8 * Place>(quad), set1(to_f32(*scale)), set1(to_f32(*minimum))));
  store(value[1], fma(nibbles<8 * Place + 4>(quad), set1(to_f32(*scale)), set1(to_f32(*minimum))));
  value[entry / kTile][entry % kTile] = x;
  const Vec a = load(value[0]), b = load(value[1]);
  const float low = -reduce_max(max(sub(zero(), a), sub(zero(), b)));
  *minimum = from_f32<f16>(low);
  *scale = from_f32<f16>((reduce_max(max(a, b)) - to_f32(*minimum)) / 15.0f);
  alignas(64) std::uint32_t first[16], second[16];
  codes_of(a, set1(to_f32(*scale)), set1(to_f32(*minimum)), first);
  codes_of(b, set1(to_f32(*scale)), set1(to_f32(*minimum)), second);
  for (std::size_t j = 0; j < kTile; ++j)
    quad[4 * j + Place] = static_cast<unsigned char>(first[j] | second[j] << 4);
}

// One entry of a group that stands: channels whose grid does not reach it, to half a step, are laid out anew.
inline void encode_q4_key(const float* k, std::size_t n, std::size_t dims, std::size_t entry,
                          unsigned char* group) {
  auto* scale = reinterpret_cast<f16*>(group + dims * kGroup / 2);
  f16* minimum = scale + dims;
  const std::size_t shift = entry / kTile * 4;
  for (std::size_t d = 0; d < n; d += 16) {
    const Vec x = load_some(k + d, n - d), s = load_as<f16>(scale + d), m = load_as<f16>(minimum + d);
    alignas(64) std::uint32_t code[16];
    codes_of(x, s, m, code);
    for (std::size_t i = 0; i < 16; ++i) {
      unsigned char& byte = group[(d + i) / 4 * 64 + entry % kTile * 4 + i % 4];
      byte = static_cast<unsigned char>((byte & (0xf0u >> shift)) | code[i] << shift);
    }
    const Vec way = sub(x, fma(s, set1(7.5f), m));
    const Vec beyond = sub(max(way, sub(zero(), way)), mul(s, set1(8.0f)));
    if (!(reduce_max(beyond) > 0.0f)) continue;
    alignas(64) float out[16];
    store(out, beyond);
    for (std::size_t i = 0; i < std::min<std::size_t>(16, n - d); ++i) {
      if (!(out[i] > 0.0f)) continue;
      unsigned char* quad = group + (d + i) / 4 * 64;
      const auto lay = i % 4 == 0   ? lay_channel<0>
                       : i % 4 == 1 ? lay_channel<1>
                       : i % 4 == 2 ? lay_channel<2>
                                    : lay_channel<3>;
      lay(quad, scale + d + i, minimum + d + i, entry, k[d + i]);
    }
  }
}

// Entry `entry` of a tile of values and where its codes are: word d of channel d, bits from `shift` on.
struct Int4Place {
  std::size_t first;
  unsigned shift;
  Int4Place(std::size_t entry, std::size_t row_size)
      : first(entry / 8 * row_size * 4), shift(static_cast<unsigned>(entry % 4 * 8 + entry % 8 / 4 * 4)) {}
};

inline void encode_q4_value(const float* v, std::size_t n, std::size_t row_size, std::size_t entry,
                            unsigned char* tile) {
  auto* scales = reinterpret_cast<f16*>(tile + row_size * kTile / 2);
  const Int4Place place(entry, row_size);
  for (std::size_t first = 0; first < n; first += kChannels, scales += 2 * kTile) {
    const std::size_t end = std::min(n, first + kChannels);
    Vec low = load_some(v + first, n - first), high = low;
    for (std::size_t d = first + 16; d < end; d += 16) {
      const Vec x = load_some(v + d, n - d);
      low = min(low, x);
      high = max(high, x);
    }
    const f16 minimum = from_f32<f16>(-reduce_max(sub(zero(), low)));
    const f16 scale = from_f32<f16>((reduce_max(high) - to_f32(minimum)) / 15.0f);
    scales[entry] = scale;
    scales[kTile + entry] = minimum;
    for (std::size_t d = first; d < end; d += 16) {
      alignas(64) std::uint32_t code[16], word[16];
      codes_of(load_some(v + d, n - d), set1(to_f32(scale)), set1(to_f32(minimum)), code);
      unsigned char* at = tile + place.first + d * 4;
      std::memcpy(word, at, sizeof word);
      for (std::size_t i = 0; i < 16; ++i)
        word[i] = (word[i] & ~(15u << place.shift)) | code[i] << place.shift;
      std::memcpy(at, word, sizeof word);
    }
  }
}

inline void decode_q4_value(const unsigned char* tile, std::size_t n, std::size_t row_size, std::size_t entry,
                            float* out) {
  const auto* scales = reinterpret_cast<const f16*>(tile + row_size * kTile / 2) + entry;
  const Int4Place place(entry, row_size);
  for (std::size_t d = 0; d < n; d += 16) {
    alignas(64) std::uint32_t word[16];
    std::memcpy(word, tile + place.first + d * 4, sizeof word);
    alignas(64) float code[16];
    for (std::size_t i = 0; i < 16; ++i)
      code[i] = static_cast<float>(static_cast<std::int32_t>(word[i] >> place.shift & 15));
    const f16* s = scales + d / kChannels * 2 * kTile;
    store_some(out + d, fma(load(code), set1(to_f32(s[0])), set1(to_f32(s[kTile]))), n - d);
  }
}
