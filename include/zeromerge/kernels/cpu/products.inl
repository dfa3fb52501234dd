// The two products of attention over packed rows, written once for every way to multiply. An Op says how:
//   Stored          element of the packed rows, kPack of them side by side in a lane
//   Factor, kParts  what the parts of a lane are multiplied with
//   Sum             16 accumulators; finish() turns them into floats, given the row of factors
// Query heads of a group are taken up to four at a time, so that they share one read of every key and value.
// While one product runs, what the next one reads is asked for (`ahead`): memory is never idle, and a cold
// cache costs little more than its bytes. Addresses behind the end are harmless.

// Any type, through f32. InRegister: factors are broadcast to registers first, not inside of each
// instruction.
template <class T, bool InRegister = false>
struct Convert {
  using Stored = stored<T>;
  using Factor = float;
  using Part = Vec;
  using Sum = Vec;
  static constexpr int kPack = static_cast<int>(pack_of<T>);
  static constexpr int kParts = kPack;
  static ZEROMERGE_INLINE void load(const Stored* at, Part* part) { load_pack<T>(at, part); }
  static ZEROMERGE_INLINE Sum none() { return zero(); }
  static ZEROMERGE_INLINE Sum plus(Sum x, Sum y) { return add(x, y); }
  static ZEROMERGE_INLINE Sum step(Sum sum, Part part, const Factor* f) {
    if constexpr (InRegister) return fma(part, set1(*f), sum);
    return fma_broadcast(part, f, sum);
  }
  static ZEROMERGE_INLINE Vec finish(Sum sum, const Factor*, std::size_t) { return sum; }
};

// run(op) with the conversion that suits the CPU; types that are converted on both sides only.
template <class T, class Run>
ZEROMERGE_INLINE void with_convert(const Run& run) {
  if constexpr (kPlainBroadcasts && (std::is_same_v<T, f16> || std::is_same_v<T, float>))
    if (plain_broadcasts()) return run(Convert<T, true>{});
  run(Convert<T>{});
}

constexpr int power_of_two_below(int n) { return n >= 8 ? 8 : n >= 4 ? 4 : n >= 2 ? 2 : 1; }

ZEROMERGE_INLINE void prefetch(const char* at) { __builtin_prefetch(at, 0, 2); }

// run(count, g): rows g .. g + count, four at a time and then the rest.
template <class Run>
ZEROMERGE_INLINE void in_fours(std::size_t group, const Run& run) {
  std::size_t g = 0;
  for (; g + 4 <= group; g += 4) run(Count<4>{}, g);
  if (group - g == 3) run(Count<3>{}, g);
  if (group - g == 2) run(Count<2>{}, g);
  if (group - g == 1) run(Count<1>{}, g);
}

// out[g][t * 16 + slot] = sum over steps of factors[g] * keys[t], for Tiles tiles. Each tile has Sets sums,
// so that enough of them are in flight.
template <class Op, int G, int Tiles, int Sets>
ZEROMERGE_INLINE void dot_tiles(const typename Op::Factor* q, std::size_t q_stride,
                                const typename Op::Stored* keys, std::size_t tile_size, std::size_t steps,
                                float* out, std::size_t out_stride, const char* ahead) {
  constexpr std::size_t kStepBytes = 16 * Op::kPack * sizeof(typename Op::Stored);
  typename Op::Sum sum[Sets][G][Tiles];
  ZEROMERGE_UNROLL
  for (int s = 0; s < Sets; ++s) {
    ZEROMERGE_UNROLL
    for (int g = 0; g < G; ++g) {
      ZEROMERGE_UNROLL
      for (int t = 0; t < Tiles; ++t) sum[s][g][t] = Op::none();
    }
  }
  const auto step = [&](std::size_t i, std::size_t set) __attribute__((always_inline)) {
    typename Op::Part part[Tiles][Op::kParts];
    ZEROMERGE_UNROLL
    for (int t = 0; t < Tiles; ++t)
      Op::load(keys + static_cast<std::size_t>(t) * tile_size + i * 16 * Op::kPack, part[t]);
    ZEROMERGE_UNROLL
    for (int g = 0; g < G; ++g) {
      ZEROMERGE_UNROLL
      for (int p = 0; p < Op::kParts; ++p) {
        const typename Op::Factor* f = q + static_cast<std::size_t>(g) * q_stride + i * Op::kParts + p;
        ZEROMERGE_UNROLL
        for (int t = 0; t < Tiles; ++t) sum[set][g][t] = Op::step(sum[set][g][t], part[t][p], f);
      }
    }
  };
  std::size_t i = 0;
  for (; i + Sets <= steps; i += Sets) {
    ZEROMERGE_UNROLL
    for (std::size_t line = 0; line < Tiles * Sets * kStepBytes; line += 64)
      prefetch(ahead + i * Tiles * kStepBytes + line);
    ZEROMERGE_UNROLL
    for (std::size_t s = 0; s < Sets; ++s) step(i + s, s);
  }
  for (; i < steps; ++i) step(i, 0);
  ZEROMERGE_UNROLL
  for (int g = 0; g < G; ++g) {
    ZEROMERGE_UNROLL
    for (int t = 0; t < Tiles; ++t) {
      ZEROMERGE_UNROLL
      for (int s = 1; s < Sets; ++s) sum[0][g][t] = Op::plus(sum[0][g][t], sum[s][g][t]);
      store(out + static_cast<std::size_t>(g) * out_stride + t * 16,
            Op::finish(sum[0][g][t], q + static_cast<std::size_t>(g) * q_stride, q_stride));
    }
  }
}

// One pass over `tiles` tiles; what follows them is asked for at `after`.
template <class Op, int G>
inline void dot_group(const typename Op::Factor* q, std::size_t q_stride, const typename Op::Stored* keys,
                      std::size_t tile_size, std::size_t steps, std::size_t tiles, float* out,
                      std::size_t out_stride, const char* after) {
  constexpr int kTiles = std::min(2, power_of_two_below(kSums / G));
  constexpr int kSets = std::min(2, power_of_two_below(kSums / G / kTiles));
  const char* own = reinterpret_cast<const char*>(keys);
  const std::size_t bytes = tile_size * sizeof(typename Op::Stored);
  std::size_t t = 0;
  for (; t + kTiles <= tiles; t += kTiles)
    dot_tiles<Op, G, kTiles, kSets>(q, q_stride, keys + t * tile_size, tile_size, steps, out + t * 16,
                                    out_stride, t + kTiles < tiles ? own + (t + kTiles) * bytes : after);
  for (; t < tiles; ++t)
    dot_tiles<Op, G, 1, kSets>(q, q_stride, keys + t * tile_size, tile_size, steps, out + t * 16, out_stride,
                               t + 1 < tiles ? own + (t + 1) * bytes : after);
}

// All rows over all tiles; more rows than registers hold pass over two tiles at a time, which the first cache
// keeps.
template <class Op>
inline void dot_rows(const typename Op::Factor* q, std::size_t q_stride, std::size_t group,
                     const typename Op::Stored* keys, std::size_t tile_size, std::size_t steps,
                     std::size_t tiles, float* out, std::size_t out_stride, const char* after) {
  const std::size_t block = group <= 4 ? tiles : 2;
  for (std::size_t t = 0; t < tiles; t += block) {
    const std::size_t count = std::min(block, tiles - t);
    const auto* at = keys + t * tile_size;
    const char* own = reinterpret_cast<const char*>(at);
    const char* next = t + count < tiles ? reinterpret_cast<const char*>(at + count * tile_size) : after;
    in_fours(group, [&](auto rows, std::size_t g) {
      dot_group<Op, decltype(rows)::value>(q + g * q_stride, q_stride, at, tile_size, steps, count,
                                           out + g * out_stride + t * 16, out_stride,
                                           g == 0 && next != nullptr ? next : own);
    });
  }
}

// out[g][0 .. 16 * N) (+)= sum over steps of factors[g] * values[step][0 .. 16 * N).
template <class Op, int G, int N>
ZEROMERGE_INLINE void weigh_columns(const typename Op::Factor* p, std::size_t p_stride,
                                    const typename Op::Stored* values, std::size_t step_size,
                                    std::size_t steps, float* out, std::size_t out_stride, bool first,
                                    const char* ahead, std::size_t ahead_step) {
  constexpr std::size_t kBytes = 16 * N * Op::kPack * sizeof(typename Op::Stored);
  typename Op::Sum sum[G][N];
  ZEROMERGE_UNROLL
  for (int g = 0; g < G; ++g) {
    ZEROMERGE_UNROLL
    for (int c = 0; c < N; ++c) sum[g][c] = Op::none();
  }
  for (std::size_t i = 0; i < steps; ++i) {
    ZEROMERGE_UNROLL
    for (std::size_t line = 0; line < kBytes; line += 64) prefetch(ahead + i * ahead_step + line);
    ZEROMERGE_UNROLL
    for (int c = 0; c < N; ++c) {
      typename Op::Part part[Op::kParts];
      Op::load(values + i * step_size + c * 16 * Op::kPack, part);
      ZEROMERGE_UNROLL
      for (int g = 0; g < G; ++g) {
        ZEROMERGE_UNROLL
        for (int k = 0; k < Op::kParts; ++k)
          sum[g][c] =
              Op::step(sum[g][c], part[k], p + static_cast<std::size_t>(g) * p_stride + i * Op::kParts + k);
      }
    }
  }
  ZEROMERGE_UNROLL
  for (int g = 0; g < G; ++g) {
    ZEROMERGE_UNROLL
    for (int c = 0; c < N; ++c) {
      float* to = out + static_cast<std::size_t>(g) * out_stride + c * 16;
      const Vec x = Op::finish(sum[g][c], p + static_cast<std::size_t>(g) * p_stride, p_stride);
      store(to, first ? x : add(load(to), x));
    }
  }
}

template <class Op, int G, int N>
ZEROMERGE_INLINE void weigh_strips(std::size_t& c, const typename Op::Factor* p, std::size_t p_stride,
                                   const typename Op::Stored* values, std::size_t row_size, std::size_t steps,
                                   float* out, std::size_t out_stride, bool first, const char* ahead,
                                   std::size_t ahead_step) {
  for (; c + 16 * N <= row_size; c += 16 * N)
    weigh_columns<Op, G, N>(p, p_stride, values + c * Op::kPack, row_size * Op::kPack, steps, out + c,
                            out_stride, first, ahead + c * Op::kPack * sizeof(typename Op::Stored),
                            ahead_step);
  if constexpr (N > 1)
    weigh_strips<Op, G, N / 2>(c, p, p_stride, values, row_size, steps, out, out_stride, first, ahead,
                               ahead_step);
}

// Rows are taken in blocks small enough to stay in the first cache while the column strips pass over them,
// and long enough that the next block, asked for meanwhile, arrives in time.
template <class Op, int G>
inline void weigh_group(const typename Op::Factor* p, std::size_t p_stride, const typename Op::Stored* values,
                        std::size_t row_size, std::size_t steps, float* out, std::size_t out_stride,
                        const char* ahead) {
  const std::size_t step_bytes = row_size * Op::kPack * sizeof(typename Op::Stored);
  const std::size_t block = std::max<std::size_t>(8, 4096 / step_bytes);
  const char* own = reinterpret_cast<const char*>(values);
  const char* after = ahead != nullptr ? ahead : own;
  for (std::size_t i = 0; i < steps; i += block) {
    std::size_t c = 0;
    weigh_strips<Op, G, power_of_two_below(kWide / G)>(
        c, p + i * Op::kParts, p_stride, values + i * row_size * Op::kPack, row_size,
        std::min(block, steps - i), out, out_stride, i == 0,
        i + block < steps ? own + (i + block) * step_bytes : after, step_bytes);
  }
}

template <class Op>
inline void weigh_rows(const typename Op::Factor* p, std::size_t p_stride, std::size_t group,
                       const typename Op::Stored* values, std::size_t row_size, std::size_t steps, float* out,
                       const char* ahead) {
  in_fours(group, [&](auto count, std::size_t g) {
    weigh_group<Op, decltype(count)::value>(p + g * p_stride, p_stride, values, row_size, steps,
                                            out + g * row_size, row_size, g == 0 ? ahead : nullptr);
  });
}
