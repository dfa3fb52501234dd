// Products by tiles of bf16 (AMX). Those of attention are as exact as prefill needs them for what is stored
// in 16 bits or less: every number is split into two of bf16, x = high + low to 2^-17 of x, and three of the
// four products are added up in f32:
//   a b ~ high(a) high(b) + high(a) low(b) + low(a) high(b)
// The parts take the place of the numbers:
//   left   of 32 columns of a row: [32] high, [32] low
//   right  of 2 rows of a panel: high, then low, each [16 columns][2 rows]
// A depth that is no multiple of 32 is multiplied as it is. What only scores are made of is one product of
// numbers rounded to bf16 (bf16_rows.inl).

inline constexpr std::size_t kTileDepth = 32;

// The shape of the eight tiles of a thread. It is the thread's, and whoever else computes with tiles on it
// finds it as it was.
struct alignas(64) TileShape {
  std::uint8_t bytes[64] = {};

  TileShape() = default;
  // Tiles of 64 bytes a row; `rows` rows in those of the left matrix and of the result.
  explicit TileShape(std::size_t rows) {
    bytes[0] = 1;
    for (std::size_t t = 0; t < 8; ++t) {
      bytes[16 + 2 * t] = 64;
      bytes[48 + t] = static_cast<std::uint8_t>(t < 6 ? rows : 16);
    }
  }
  void use() const { asm volatile("ldtilecfg %0" : : "m"(*this) : "memory"); }
  void save() { asm volatile("sttilecfg %0" : "=m"(*this) : : "memory"); }
};

template <int Tile>
ZEROMERGE_INLINE void tile_load(const float* p, std::size_t stride_bytes) {
  asm volatile("{tileloadd (%0,%1,1), %%tmm%c2|tileloadd tmm%c2, [%0+%1*1]}"
               :
               : "r"(p), "r"(stride_bytes), "i"(Tile)
               : "memory");
}
template <int Tile>
ZEROMERGE_INLINE void tile_store(float* p, std::size_t stride_bytes) {
  asm volatile("{tilestored %%tmm%c2, (%0,%1,1)|tilestored [%0+%1*1], tmm%c2}"
               :
               : "r"(p), "r"(stride_bytes), "i"(Tile)
               : "memory");
}
template <int Tile>
ZEROMERGE_INLINE void tile_zero() {
  asm volatile("{tilezero %%tmm%c0|tilezero tmm%c0}" : : "i"(Tile));
}
template <int C, int A, int B>
ZEROMERGE_INLINE void tile_dot() {
  asm volatile("{tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0|tdpbf16ps tmm%c0, tmm%c1, tmm%c2}"
               :
               : "i"(C), "i"(A), "i"(B));
}

// Tiles 0 to 3: the result, row tile r and column tile c in 2 r + c; 4, 5: left; 6, 7: right.
template <int R, int N>
ZEROMERGE_INLINE void tile_dots() {
  tile_dot<0, 4, 6>();
  if constexpr (N > 1) tile_dot<1, 4, 7>();
  if constexpr (R > 1) tile_dot<2, 5, 6>();
  if constexpr (R > 1 && N > 1) tile_dot<3, 5, 7>();
}
template <int R>
ZEROMERGE_INLINE void load_left(const float* a, std::size_t lda) {
  tile_load<4>(a, lda * sizeof(float));
  if constexpr (R > 1) tile_load<5>(a + 16 * lda, lda * sizeof(float));
}
// pair: floats from two rows to the next two.
template <int N>
ZEROMERGE_INLINE void load_right(const float* b, std::size_t panel, std::size_t pair) {
  tile_load<6>(b, pair * sizeof(float));
  if constexpr (N > 1) tile_load<7>(b + panel, pair * sizeof(float));
}
template <int R, int N, class Body>
ZEROMERGE_INLINE void for_result(float* c, std::size_t ldc, const Body& body) {
  body(Count<0>{}, c);
  if constexpr (N > 1) body(Count<1>{}, c + 16);
  if constexpr (R > 1) body(Count<2>{}, c + 16 * ldc);
  if constexpr (R > 1 && N > 1) body(Count<3>{}, c + 16 * ldc + 16);
}

// Half of the lines that the next columns of the right matrix take for a step of depth.
template <int N, int Half>
ZEROMERGE_INLINE void fetch(const float* b, std::size_t panel, Count<Half>) {
  ZEROMERGE_UNROLL
  for (int n = 0; n < N; ++n) {
    ZEROMERGE_UNROLL
    for (int i = Half * 16; i < Half * 16 + 16; ++i)
      __builtin_prefetch(b + static_cast<std::size_t>(n) * panel + i * 16, 0, 3);
  }
}
// A step of 32 of depth, in two parts a number or rounded.
template <int R, int N>
ZEROMERGE_INLINE void split_step(const float*& a, std::size_t lda, const float*& b, std::size_t panel) {
  constexpr std::size_t kLow = kTile;  // floats from the high parts to the low ones
  load_left<R>(a, lda);
  load_right<N>(b + kLow, panel, 2 * kTile);
  tile_dots<R, N>();
  fetch<N>(b + N * panel, panel, Count<0>{});
  load_right<N>(b, panel, 2 * kTile);
  tile_dots<R, N>();
  fetch<N>(b + N * panel, panel, Count<1>{});
  load_left<R>(a + kLow, lda);
  tile_dots<R, N>();
  a += kTileDepth;
  b += kTileDepth * kTile;
}
template <int R, int N>
ZEROMERGE_INLINE void rounded_step(const float*& a, std::size_t lda, const float*& b, std::size_t panel) {
  load_left<R>(a, lda);
  load_right<N>(b, panel, kTile);
  tile_dots<R, N>();
  fetch<N>(b + N * panel, panel, Count<0>{});
  a += kTileDepth / 2;
  b += kTileDepth / 2 * kTile;
}

// C (+)= A B for R row tiles and N column tiles.
template <bool Split, int R, int N>
inline void tile_block(const float* a, std::size_t lda, const float* b, std::size_t panel, float* c,
                       std::size_t ldc, std::size_t depth, bool accumulate) {
  const std::size_t stride = ldc * sizeof(float);
  for_result<R, N>(c, ldc, [&](auto tile, float* at) {
    if (accumulate)
      tile_load<tile>(at, stride);
    else
      tile_zero<tile>();
  });
  for (std::size_t k = 0; k < depth; k += kTileDepth) {
    if constexpr (Split)
      split_step<R, N>(a, lda, b, panel);
    else
      rounded_step<R, N>(a, lda, b, panel);
  }
  for_result<R, N>(c, ldc, [&](auto tile, float* at) { tile_store<tile>(at, stride); });
}

template <bool Split, int R>
inline void tile_rows(const float* a, std::size_t lda, const float* b, std::size_t panel, float* c,
                      std::size_t ldc, std::size_t columns, std::size_t depth, bool accumulate) {
  std::size_t n = 0;
  for (; n + 32 <= columns; n += 32)
    tile_block<Split, R, 2>(a, lda, b + n / 16 * panel, panel, c + n, ldc, depth, accumulate);
  if (n < columns) tile_block<Split, R, 1>(a, lda, b + n / 16 * panel, panel, c + n, ldc, depth, accumulate);
}

// depth: a multiple of 32.
template <bool Split>
inline void tile_product(const Left& left, const float* b, std::size_t panel, float* c, std::size_t ldc,
                         std::size_t rows, std::size_t columns, std::size_t depth, bool accumulate) {
  const float* a = left.rows;
  const std::size_t lda = left.stride;
  std::size_t r = 0;
  for (; r + 32 <= rows; r += 32)
    tile_rows<Split, 2>(a + r * lda, lda, b, panel, c + r * ldc, ldc, columns, depth, accumulate);
  if (r + 16 <= rows) {
    tile_rows<Split, 1>(a + r * lda, lda, b, panel, c + r * ldc, ldc, columns, depth, accumulate);
    r += 16;
  }
  if (r == rows) return;
  TileShape(rows - r).use();
  tile_rows<Split, 1>(a + r * lda, lda, b, panel, c + r * ldc, ldc, columns, depth, accumulate);
  TileShape(16).use();
}

// The nearest bf16 of each number, as f32.
ZEROMERGE_INLINE Vec high_part(Vec x) {
  const __m512i up = _mm512_add_epi32(_mm512_castps_si512(x.v), _mm512_set1_epi32(0x8000));
  return {_mm512_castsi512_ps(_mm512_and_si512(up, _mm512_set1_epi32(static_cast<int>(0xffff0000u))))};
}
// Numbers of bf16: those of `even` in the low halves of 16 words, those of `odd` in the high ones.
ZEROMERGE_INLINE void store_pairs(Vec even, Vec odd, float* to) {
  const __m512i low = _mm512_maskz_srli_epi32(kAll, _mm512_castps_si512(even.v), 16);
  _mm512_storeu_si512(to, _mm512_or_si512(low, _mm512_castps_si512(odd.v)));
}
// Numbers of bf16 in a row: those of `first`, then those of `second`.
ZEROMERGE_INLINE void store_row(Vec first, Vec second, float* to) {
  const __m512bh both = _mm512_maskz_cvtne2ps_pbh(0xffffffffu, second.v, first.v);
  std::memcpy(to, &both, sizeof both);
}

// For the time of some products.
class TilesInUse {
 public:
  TilesInUse() {
    before_.save();
    TileShape(16).use();
  }
  ~TilesInUse() { before_.use(); }
  TilesInUse(const TilesInUse&) = delete;
  TilesInUse& operator=(const TilesInUse&) = delete;

 private:
  TileShape before_;
};

// See gemm_plain.inl.
struct Gemm {
  static constexpr std::size_t kRowStep = 16;

  Left queries(Left q, std::size_t rows, std::size_t depth, float* space) const {
    if (depth % kTileDepth != 0) return q;
    for (std::size_t r = 0; r < rows; ++r) split_row(q.rows + r * q.stride, depth, space + r * q.stride);
    return {space, q.stride};
  }
  Left weights(float* p, std::size_t stride, std::size_t rows, std::size_t n, float* space) const {
    const std::size_t padded = round_up(n, kTileDepth);
    for (std::size_t r = 0; r < rows; ++r) {
      float* row = p + r * stride;
      std::fill(row + n, row + padded, 0.0f);
      split_row(row, padded, space + r * kKeyBlock);
    }
    return {space, kKeyBlock};
  }
  void right(float* b, std::size_t count, std::size_t panel, std::size_t depth) const {
    if (depth % kTileDepth != 0 && panel < round_up(depth, kTileDepth) * kTile) return;
    for (std::size_t p = 0; p < count; ++p) {
      float* rows = b + p * panel;
      std::fill(rows + depth * kTile, rows + round_up(depth, kTileDepth) * kTile, 0.0f);
      for (std::size_t d = 0; d < depth; d += 2) {
        float* at = rows + d * kTile;
        const Vec x = load(at);
        const Vec y = load(at + kTile);
        const Vec high_x = high_part(x);
        const Vec high_y = high_part(y);
        store_pairs(high_x, high_y, at);
        store_pairs(high_part(sub(x, high_x)), high_part(sub(y, high_y)), at + kTile);
      }
    }
  }
  void multiply(const Left& left, const float* b, std::size_t panel, float* c, std::size_t ldc,
                std::size_t rows, std::size_t columns, std::size_t depth, bool accumulate) const {
    if (depth % kTileDepth != 0) {
      if (panel < round_up(depth, kTileDepth) * kTile)
        return product(left.rows, left.stride, b, panel, c, ldc, rows, columns, depth, accumulate);
      depth = round_up(depth, kTileDepth);
    }
    tile_product<true>(left, b, panel, c, ldc, rows, columns, depth, accumulate);
  }

 private:
  static void split_row(const float* a, std::size_t depth, float* to) {
    for (std::size_t d = 0; d < depth; d += kTileDepth) {
      const Vec x = load(a + d);
      const Vec y = load(a + d + 16);
      const Vec high_x = high_part(x);
      const Vec high_y = high_part(y);
      store_row(high_x, high_y, to + d);
      store_row(sub(x, high_x), sub(y, high_y), to + d + 16);
    }
  }

  TilesInUse tiles_;
};

class CoarseGemm : public Bf16Operands {
 public:
  void multiply(const Left& left, const float* panels, float* c, std::size_t ldc, std::size_t rows,
                std::size_t columns, std::size_t size) const {
    tile_product<false>(left, panels, panel_floats(size), c, ldc, rows, columns, panel_depth(size), false);
  }

 private:
  TilesInUse tiles_;
};
