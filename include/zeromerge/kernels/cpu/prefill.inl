// Blocked causal attention of many query rows over one kv head, with the column statistics of such rows. Rows
// of a group's query heads are stacked (row = token * group + g), so that every key and value is read once
// for all. Blocks of kKeyBlock entries are widened to f32 once and multiplied with all rows.

// C[r][0 .. 16 * N) (+)= sum over k of A[r][k] * B[k][0 .. 16 * N) for R rows.
template <int R, int N>
ZEROMERGE_INLINE void product_block(const float* a, std::size_t lda, const float* b, std::size_t ldb,
                                    float* c, std::size_t ldc, std::size_t depth, bool accumulate) {
  Vec sum[R][N];
  ZEROMERGE_UNROLL
  for (int r = 0; r < R; ++r) {
    ZEROMERGE_UNROLL
    for (int n = 0; n < N; ++n)
      sum[r][n] = accumulate ? load(c + static_cast<std::size_t>(r) * ldc + n * 16) : zero();
  }
  for (std::size_t k = 0; k < depth; ++k) {
    Vec x[N];
    ZEROMERGE_UNROLL
    for (int n = 0; n < N; ++n) x[n] = load(b + k * ldb + n * 16);
    ZEROMERGE_UNROLL
    for (int r = 0; r < R; ++r) {
      const Vec w = set1(a[static_cast<std::size_t>(r) * lda + k]);
      ZEROMERGE_UNROLL
      for (int n = 0; n < N; ++n) sum[r][n] = fma(x[n], w, sum[r][n]);
    }
  }
  ZEROMERGE_UNROLL
  for (int r = 0; r < R; ++r) {
    ZEROMERGE_UNROLL
    for (int n = 0; n < N; ++n) store(c + static_cast<std::size_t>(r) * ldc + n * 16, sum[r][n]);
  }
}

template <int R>
inline void product_rows(const float* a, std::size_t lda, const float* b, std::size_t ldb, float* c,
                         std::size_t ldc, std::size_t columns, std::size_t depth, bool accumulate) {
  std::size_t n = 0;
  for (; n + 16 * kGemmVectors <= columns; n += 16 * kGemmVectors)
    product_block<R, kGemmVectors>(a, lda, b + n, ldb, c + n, ldc, depth, accumulate);
  for (; n < columns; n += 16) product_block<R, 1>(a, lda, b + n, ldb, c + n, ldc, depth, accumulate);
}

// columns: a multiple of 16.
inline void product(const float* a, std::size_t lda, const float* b, std::size_t ldb, float* c,
                    std::size_t ldc, std::size_t rows, std::size_t columns, std::size_t depth,
                    bool accumulate) {
  std::size_t r = 0;
  for (; r + kGemmRows <= rows; r += kGemmRows)
    product_rows<kGemmRows>(a + r * lda, lda, b, ldb, c + r * ldc, ldc, columns, depth, accumulate);
  for (; kGemmRows > 2 && r + 2 <= rows; r += 2)
    product_rows<2>(a + r * lda, lda, b, ldb, c + r * ldc, ldc, columns, depth, accumulate);
  for (; r < rows; ++r)
    product_rows<1>(a + r * lda, lda, b, ldb, c + r * ldc, ldc, columns, depth, accumulate);
}

// `tiles` tiles of keys from entry `first` on, as f32 [dims][kKeyBlock].
template <class T>
inline void widen_keys(const KeyTiles<T>& keys, std::size_t first, std::size_t tiles, float* wide) {
  constexpr std::size_t kPack = pack_of<T>;
  for (std::size_t t = 0; t < tiles; ++t) {
    const stored<T>* at = keys.tile(first / kTile + t);
    for (std::size_t d = 0; d < keys.dims; d += kPack) {
      Vec part[kPack];
      load_pack<T>(at + d * kTile, part);
      for (std::size_t k = 0; k < kPack; ++k) {
        if constexpr (std::is_same_v<T, q8>) part[k] = mul(part[k], load(keys.scale + first + t * kTile));
        store(wide + (d + k) * kKeyBlock + t * kTile, part[k]);
      }
    }
  }
}

template <>
inline void widen_keys<q4>(const KeyTiles<q4>& keys, std::size_t first, std::size_t tiles, float* wide) {
  for (std::size_t t = 0; t < tiles; ++t) {
    const std::size_t entry = first + t * kTile;
    if (entry >= keys.packed) {
      widen_keys<f16>(keys.window, entry - keys.packed, tiles - t, wide + t * kTile);
      for (std::size_t d = keys.window.dims; d < keys.dims; ++d)  // the window's rows are not padded
        std::fill_n(wide + d * kKeyBlock + t * kTile, (tiles - t) * kTile, 0.0f);
      return;
    }
    const unsigned char* group = keys.group(entry / kGroup);
    const f16* scale = keys.scales(group);
    for (std::size_t d = 0; d < keys.dims; d += 4, group += 64) {
      const bool second = entry / kTile % 2 != 0;
      const Vec x[4] = {
          second ? nibbles<4>(group) : nibbles<0>(group), second ? nibbles<20>(group) : nibbles<16>(group),
          second ? nibbles<12>(group) : nibbles<8>(group), second ? nibbles<28>(group) : nibbles<24>(group)};
      for (std::size_t k = 0; k < 4; ++k)
        store(wide + (d + k) * kKeyBlock + t * kTile,
              fma(x[k], set1(to_f32(scale[d + k])), set1(to_f32(scale[keys.dims + d + k]))));
    }
  }
}

// n rows of values from entry `first` on, as f32 [n rounded up to pack][row_size].
template <class T>
inline void widen_values(const ValueRows<T>& values, std::size_t first, std::size_t n, float* wide) {
  constexpr std::size_t kPack = pack_of<T>;
  for (std::size_t j = 0; j < n; j += kPack) {
    const stored<T>* at = values.row(first + j);
    for (std::size_t d = 0; d < values.row_size; d += 16) {
      Vec part[kPack];
      load_pack<T>(at + d * kPack, part);
      for (std::size_t k = 0; k < kPack; ++k) {
        if constexpr (std::is_same_v<T, q8>) part[k] = mul(part[k], set1(values.scale[first + j + k]));
        store(wide + (j + k) * values.row_size + d, part[k]);
      }
    }
  }
}

template <>
inline void widen_values<q4>(const ValueRows<q4>& values, std::size_t first, std::size_t n, float* wide) {
  for (std::size_t j = 0; j < n; j += kTile, wide += kTile * values.row_size) {
    if (first + j >= values.packed)
      return widen_values<f16>(values.window, first + j - values.packed, n - j, wide);
    const unsigned char* tile = values.tile((first + j) / kTile);
    for (std::size_t d = 0; d < values.row_size; d += 16) {
      const f16* scale = values.scales(tile, d / kGroup);
      for (std::size_t octet = 0; octet < 2; ++octet) {
        const unsigned char* at = tile + (octet * values.row_size + d) * 4;
        const Vec x[8] = {nibbles<0>(at), nibbles<16>(at), nibbles<4>(at),  nibbles<20>(at),
                          nibbles<8>(at), nibbles<24>(at), nibbles<12>(at), nibbles<28>(at)};
        for (std::size_t e = 0; e < 8; ++e) {
          const std::size_t entry = octet * 8 + e;
          store(wide + entry * values.row_size + d,
                fma(x[e], set1(to_f32(scale[entry])), set1(to_f32(scale[kTile + entry]))));
        }
      }
    }
  }
}

// The same without the type.
template <class T>
inline void widen_any_keys(const void* keys, std::size_t first, std::size_t tiles, float* wide) {
  widen_keys<T>(*static_cast<const KeyTiles<T>*>(keys), first, tiles, wide);
}
template <class T>
inline void widen_any_values(const void* values, std::size_t first, std::size_t n, float* wide) {
  widen_values<T>(*static_cast<const ValueRows<T>*>(values), first, n, wide);
}

// s[r][0 .. columns) for the key block at `first`: dot products in units of log 2, soft-capped, biased,
// masked beyond the row's limit.
inline void block_logits(const PrefillRows& rows, const WideRows& keys, std::size_t first,
                         std::size_t columns, float* wide, float* s, std::size_t stride) {
  keys.widen(keys.rows, first, columns / kTile, wide);
  product(rows.q, rows.q_stride, wide, kKeyBlock, s, stride, rows.count, columns, keys.size, false);
  for (std::size_t r = 0; r < rows.count; ++r) {
    float* row = s + r * stride;
    if (rows.softcap > 0.0f)
      for (std::size_t j = 0; j < columns; j += 16)
        store(row + j, capped(load(row + j), set1(rows.softcap * kLog2E)));
    if (rows.bias != nullptr)
      for (std::size_t j = 0; j < columns; j += 16)
        store(row + j, fma(load(rows.bias + first + j), set1(kLog2E), load(row + j)));
    const std::size_t limit = rows.limit[r] > first ? rows.limit[r] - first : 0;
    for (std::size_t j = limit; j < columns; ++j) row[j] = kMasked;
  }
}

// In place 2^(x - maximum) of `columns` numbers, a multiple of 16; the sum.
ZEROMERGE_INLINE float exponentials_of(float* row, std::size_t columns, float maximum) {
  const Vec shift = set1(maximum);
  Vec sum = zero();
  for (std::size_t j = 0; j < columns; j += 16) {
    const Vec p = exp2(sub(load(row + j), shift));
    store(row + j, p);
    sum = add(sum, p);
  }
  return reduce_add(sum);
}
ZEROMERGE_INLINE float maximum_of(const float* row, std::size_t columns) {
  Vec top = load(row);
  for (std::size_t j = 16; j < columns; j += 16) top = max(top, load(row + j));
  return reduce_max(top);
}
ZEROMERGE_INLINE void scale_row(float* row, std::size_t n, float factor) {
  for (std::size_t d = 0; d < n; d += 16) store(row + d, mul(load(row + d), set1(factor)));
}
inline std::size_t last_limit(const PrefillRows& rows) {
  std::size_t end = 0;
  for (std::size_t r = 0; r < rows.count; ++r) end = std::max(end, rows.limit[r]);
  return end;
}

// Attention of the rows over all entries below each row's limit, with a running maximum. out: [count]
// [row_size].
inline void attend_rows(const PrefillRows& rows, const WideRows& keys, const WideRows& values,
                        PrefillScratch s, float* out) {
  const std::size_t row_size = values.size;
  const std::size_t end = last_limit(rows);
  for (std::size_t first = 0; first < end; first += kKeyBlock) {
    const std::size_t n = std::min(kKeyBlock, end - first);
    const std::size_t columns = round_up(n, kTile);
    block_logits(rows, keys, first, columns, s.wide, s.logits, kKeyBlock);
    for (std::size_t r = 0; r < rows.count; ++r) {
      float* row = s.logits + r * kKeyBlock;
      const float before = first != 0 ? s.maximum[r] : rows.sink != nullptr ? rows.sink[r] : kMasked;
      const float maximum = std::max(before, maximum_of(row, columns));
      const float sum = exponentials_of(row, columns, maximum);
      const float factor = std::exp2(before - maximum);  // what was added up before, at the new maximum
      if (first != 0 && factor != 1.0f) scale_row(out + r * row_size, row_size, factor);
      s.sum[r] = (first != 0 ? s.sum[r] : rows.sink != nullptr ? 1.0f : 0.0f) * factor + sum;
      s.maximum[r] = maximum;
    }
    values.widen(values.rows, first, n, s.wide);
    product(s.logits, kKeyBlock, s.wide, row_size, out, row_size, rows.count, row_size, n, first != 0);
  }
  for (std::size_t r = 0; r < rows.count; ++r) scale_row(out + r * row_size, row_size, 1.0f / s.sum[r]);
}

// column[j] (+)= the sum over rows of coefficient[r] * s[r][j], or their largest, for a multiple of 16
// columns.
inline void add_to_columns(const float* s, std::size_t stride, std::size_t rows, const float* coefficient,
                           ColumnStatistic statistic, std::size_t columns, float* column) {
  for (std::size_t j = 0; j < columns; j += 16) {
    Vec x = load(column + j);
    if (statistic == ColumnStatistic::sum)
      for (std::size_t r = 0; r < rows; ++r) x = fma(load(s + r * stride + j), set1(coefficient[r]), x);
    else
      for (std::size_t r = 0; r < rows; ++r) x = max(x, mul(load(s + r * stride + j), set1(coefficient[r])));
    store(column + j, x);
  }
}

// The same attention with a whole strip of logits kept (s.strip: [count][strip_stride]), so that the
// probabilities are known before the values are read: column[j] (+)= statistic over rows of weight[r] *
// probability[r][j], for the entries below the last limit, padded to 16.
inline void attend_rows_with_columns(const PrefillRows& rows, const float* weight, ColumnStatistic statistic,
                                     const WideRows& keys, const WideRows& values, PrefillScratch s,
                                     float* out, float* column) {
  const std::size_t row_size = values.size;
  const std::size_t end = last_limit(rows);
  for (std::size_t first = 0; first < end; first += kKeyBlock)
    block_logits(rows, keys, first, round_up(std::min(kKeyBlock, end - first), kTile), s.wide,
                 s.strip + first, s.strip_stride);
  for (std::size_t r = 0; r < rows.count; ++r) {
    float* row = s.strip + r * s.strip_stride;
    const float sink = rows.sink != nullptr ? rows.sink[r] : kMasked;
    const float maximum = std::max(sink, maximum_of(row, round_up(end, kTile)));
    s.sum[r] = 1.0f / (exponentials_of(row, round_up(end, kTile), maximum) +
                       (rows.sink != nullptr ? std::exp2(sink - maximum) : 0.0f));
    s.maximum[r] = weight[r] * s.sum[r];
  }
  for (std::size_t first = 0; first < end; first += kKeyBlock) {
    const std::size_t n = std::min(kKeyBlock, end - first);
    add_to_columns(s.strip + first, s.strip_stride, rows.count, s.maximum, statistic, round_up(n, kTile),
                   column + first);
    values.widen(values.rows, first, n, s.wide);
    product(s.strip + first, s.strip_stride, s.wide, row_size, out, row_size, rows.count, row_size, n,
            first != 0);
  }
  for (std::size_t r = 0; r < rows.count; ++r) scale_row(out + r * row_size, row_size, s.sum[r]);
}
