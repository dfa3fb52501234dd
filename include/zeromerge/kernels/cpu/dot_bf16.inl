// bf16 with instructions that multiply pairs of them: queries and weights are rounded to bf16, sums are f32.

// See fma_broadcast.
ZEROMERGE_INLINE Vec dot_pairs(__m512bh x, const std::int32_t* f, Vec z) {
  asm("vdpbf16ps {%2%{1to16%}, %1, %0|%0, %1, %2%{1to16%}}" : "+v"(z.v) : "v"(x), "m"(*f));
  return z;
}

struct DotBf16 {
  using Stored = bf16;
  using Factor = std::int32_t;  // two bf16
  using Part = __m512bh;
  using Sum = Vec;
  static constexpr int kPack = 2;
  static constexpr int kParts = 1;
  static ZEROMERGE_INLINE void load(const Stored* at, Part* part) {
    part[0] = (__m512bh)_mm512_loadu_si512(at);
  }
  static ZEROMERGE_INLINE Sum none() { return zero(); }
  static ZEROMERGE_INLINE Sum plus(Sum x, Sum y) { return add(x, y); }
  static ZEROMERGE_INLINE Sum step(Sum sum, Part part, const Factor* f) { return dot_pairs(part, f, sum); }
  static ZEROMERGE_INLINE Vec finish(Sum sum, const Factor*, std::size_t) { return sum; }
};

template <>
inline void prepare<bf16>(float* rows, std::size_t stride, std::size_t count, std::size_t dims) {
  for (std::size_t r = 0; r < count; ++r) round_row(rows + r * stride, round_up(dims, 16), rows + r * stride);
}

template <>
inline void logits<bf16>(const float* q, std::size_t q_stride, std::size_t group, const KeyTiles<bf16>& keys,
                         std::size_t first, std::size_t tiles, float* out, std::size_t out_stride,
                         const void* ahead) {
  dot_rows<DotBf16>(reinterpret_cast<const std::int32_t*>(q), q_stride, group, keys.tile(first / kTile),
                    keys.tile_size(), keys.dims / 2, tiles, out, out_stride, static_cast<const char*>(ahead));
}

template <>
inline void weighted_sum<bf16>(const float* p, std::size_t p_stride, std::size_t group,
                               const ValueRows<bf16>& values, std::size_t first, std::size_t n, float* out,
                               const void* ahead) {
  alignas(64) std::int32_t weight[4][kSegment / 2];
  for (std::size_t g = 0; g < group; g += 4) {
    const std::size_t heads = std::min<std::size_t>(4, group - g);
    for (std::size_t h = 0; h < heads; ++h) round_row(p + (g + h) * p_stride, round_up(n, 16), weight[h]);
    weigh_rows<DotBf16>(weight[0], kSegment / 2, heads, values.row(first), values.row_size, (n + 1) / 2,
                        out + g * values.row_size, g == 0 ? static_cast<const char*>(ahead) : nullptr);
  }
}
