// Blocked causal attention of many query rows over one kv head, with the column statistics of such rows. Rows
// of a group's query heads are stacked (row = token * group + g), so that every key and value is read once
// for all. Blocks of kKeyBlock entries are widened to f32 once and multiplied with all rows. What is widened
// lies in panels of 16 columns, each [rows][16], so that a product reads it in one stream.

// C[r][0 .. 16 * N) (+)= sum over k of A[r][k] * B[k][0 .. 16 * N) for R rows; b: N panels.
template <int R, int N>
ZEROMERGE_INLINE void product_block(const float* a, std::size_t lda, const float* b, std::size_t panel,
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
    for (int n = 0; n < N; ++n) x[n] = load(b + static_cast<std::size_t>(n) * panel + k * 16);
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
inline void product_rows(const float* a, std::size_t lda, const float* b, std::size_t panel, float* c,
                         std::size_t ldc, std::size_t columns, std::size_t depth, bool accumulate) {
  std::size_t n = 0;
  for (; n + 16 * kGemmVectors <= columns; n += 16 * kGemmVectors)
    product_block<R, kGemmVectors>(a, lda, b + n / 16 * panel, panel, c + n, ldc, depth, accumulate);
  for (; n < columns; n += 16)
    product_block<R, 1>(a, lda, b + n / 16 * panel, panel, c + n, ldc, depth, accumulate);
}

// C = A B or C += A B. columns: a multiple of 16; b: panels of 16 columns, `panel` floats apart.
inline void product(const float* a, std::size_t lda, const float* b, std::size_t panel, float* c,
                    std::size_t ldc, std::size_t rows, std::size_t columns, std::size_t depth,
                    bool accumulate) {
  std::size_t r = 0;
  for (; r + kGemmRows <= rows; r += kGemmRows)
    product_rows<kGemmRows>(a + r * lda, lda, b, panel, c + r * ldc, ldc, columns, depth, accumulate);
  for (; kGemmRows > 2 && r + 2 <= rows; r += 2)
    product_rows<2>(a + r * lda, lda, b, panel, c + r * ldc, ldc, columns, depth, accumulate);
  for (; r < rows; ++r)
    product_rows<1>(a + r * lda, lda, b, panel, c + r * ldc, ldc, columns, depth, accumulate);
}

// `tiles` tiles of keys from entry `first` on, as f32 panels [tiles][dims][16].
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
        store(wide + (t * keys.dims + d + k) * kTile, part[k]);
      }
    }
  }
}

template <>
inline void widen_keys<q4>(const KeyTiles<q4>& keys, std::size_t first, std::size_t tiles, float* wide) {
  for (std::size_t t = 0; t < tiles; ++t) {
    const std::size_t entry = first + t * kTile;
    if (entry >= keys.packed) {
      float* panel = wide + t * keys.dims * kTile;
      widen_keys<f16>(keys.window, entry - keys.packed, 1, panel);
      const std::size_t dims = keys.window.dims;  // the window's rows are not padded
      std::fill_n(panel + dims * kTile, (keys.dims - dims) * kTile, 0.0f);
      continue;
    }
    const unsigned char* group = keys.group(entry / kGroup);
    const f16* scale = keys.scales(group);
    for (std::size_t d = 0; d < keys.dims; d += 4, group += 64) {
      const bool second = entry / kTile % 2 != 0;
      const Vec x[4] = {
          second ? nibbles<4>(group) : nibbles<0>(group), second ? nibbles<12>(group) : nibbles<8>(group),
          second ? nibbles<20>(group) : nibbles<16>(group), second ? nibbles<28>(group) : nibbles<24>(group)};
      for (std::size_t k = 0; k < 4; ++k)
        store(wide + (t * keys.dims + d + k) * kTile,
              fma(x[k], set1(to_f32(scale[d + k])), set1(to_f32(scale[keys.dims + d + k]))));
    }
  }
}

// n rows of values from entry `first` on, as f32 panels [row_size / 16][kKeyBlock][16], of which n rounded up
// to pack rows are written.
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
        store(wide + (d / kTile * kKeyBlock + j + k) * kTile, part[k]);
      }
    }
  }
}

template <>
inline void widen_values<q4>(const ValueRows<q4>& values, std::size_t first, std::size_t n, float* wide) {
  for (std::size_t j = 0; j < n; j += kTile, wide += kTile * kTile) {
    if (first + j >= values.packed)
      return widen_values<f16>(values.window, first + j - values.packed, n - j, wide);
    const unsigned char* tile = values.tile((first + j) / kTile);
    for (std::size_t d = 0; d < values.row_size; d += 16) {
      const f16* scale = values.scales(tile, d / kGroup);
      for (std::size_t octet = 0; octet < 2; ++octet) {
        const unsigned char* at = tile + (octet * values.row_size + d) * 4;
        const Vec x[8] = {nibbles<0>(at), nibbles<8>(at),  nibbles<16>(at), nibbles<24>(at),
                          nibbles<4>(at), nibbles<12>(at), nibbles<20>(at), nibbles<28>(at)};
        for (std::size_t e = 0; e < 8; ++e) {
          const std::size_t entry = octet * 8 + e;
          store(wide + (d / kTile * kKeyBlock + entry) * kTile,
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

// Of the first rows, in whole steps of the product, how many see nothing from entry `first` on.
inline std::size_t finished(const PrefillRows& rows, std::size_t first) {
  std::size_t r = 0;
  while (r + kGemmRows <= rows.count && rows.limit[r + kGemmRows - 1] <= first) r += kGemmRows;
  return r;
}

// s[r][0 .. columns) for the key block at `first` and the rows from `from` on: dot products in units of log
// 2, soft-capped, biased, masked beyond the row's limit.
inline void block_logits(const PrefillRows& rows, std::size_t from, const WideRows& keys, std::size_t first,
                         std::size_t columns, float* wide, float* s, std::size_t stride) {
  keys.widen(keys.rows, first, columns / kTile, wide);
  product(rows.q + from * rows.q_stride, rows.q_stride, wide, keys.size * kTile, s + from * stride, stride,
          rows.count - from, columns, keys.size, false);
  for (std::size_t r = from; r < rows.count; ++r) {
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

// The running maxima of the rows from `from` on after a block of logits at `first`, and in s.factor what
// turns what was added up before to the new maximum.
inline void raise_maxima(const PrefillRows& rows, std::size_t from, std::size_t first, std::size_t columns,
                         PrefillScratch s) {
  for (std::size_t r = from; r < rows.count; ++r) {
    const float before = first != 0 ? s.maximum[r] : rows.sink != nullptr ? rows.sink[r] : kMasked;
    s.maximum[r] = std::max(before, maximum_of(s.logits + r * kKeyBlock, columns));
    s.factor[r] = before - s.maximum[r];
  }
  std::fill(s.factor + rows.count, s.factor + round_up(rows.count, 16), 0.0f);
  for (std::size_t r = from / 16 * 16; r < rows.count; r += 16) store(s.factor + r, exp2(load(s.factor + r)));
}

// The log, base 2, of a row's sum of exponentials without that of entry 0.
inline float local_sum(float maximum, float sum, float first) {
  const float rest = sum - first;
  return rest > 0.0f ? maximum + std::log2(rest) : kMasked;
}

// Attention of the rows over all entries below each row's limit, with a running maximum. out: [count]
// [row_size].
inline void attend_rows(const PrefillRows& rows, const WideRows& keys, const WideRows& values,
                        PrefillScratch s, float* out) {
  const std::size_t row_size = values.size;
  const std::size_t end = rows.limit[rows.count - 1];
  std::fill_n(s.factor, kRowBlock, 0.0f);
  for (std::size_t first = 0; first < end; first += kKeyBlock) {
    const std::size_t n = std::min(kKeyBlock, end - first);
    const std::size_t columns = round_up(n, kTile);
    const std::size_t from = finished(rows, first);
    block_logits(rows, from, keys, first, columns, s.wide, s.logits, kKeyBlock);
    raise_maxima(rows, from, first, columns, s);
    for (std::size_t r = from; r < rows.count; ++r) {
      const float sum = exponentials_of(s.logits + r * kKeyBlock, columns, s.maximum[r]);
      if (first != 0 && s.factor[r] != 1.0f) scale_row(out + r * row_size, row_size, s.factor[r]);
      s.sum[r] = (first != 0 ? s.sum[r] : rows.sink != nullptr ? 1.0f : 0.0f) * s.factor[r] + sum;
      if (s.local != nullptr) s.local[r] = first != 0 ? s.local[r] * s.factor[r] : s.logits[r * kKeyBlock];
    }
    values.widen(values.rows, first, n, s.wide);
    product(s.logits + from * kKeyBlock, kKeyBlock, s.wide, kKeyBlock * kTile, out + from * row_size,
            row_size, rows.count - from, row_size, n, first != 0);
  }
  for (std::size_t r = 0; r < rows.count; ++r) {
    scale_row(out + r * row_size, row_size, 1.0f / s.sum[r]);
    if (s.local != nullptr) s.local[r] = local_sum(s.maximum[r], s.sum[r], s.local[r]);
  }
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
  const std::size_t end = rows.limit[rows.count - 1];
  for (std::size_t first = 0; first < end; first += kKeyBlock)
    block_logits(rows, finished(rows, first), keys, first, round_up(std::min(kKeyBlock, end - first), kTile),
                 s.wide, s.strip + first, s.strip_stride);
  for (std::size_t r = 0; r < rows.count; ++r) {
    // Its blocks of logits end where the last of the rows that are multiplied together sees nothing more.
    const std::size_t last = std::min(r / kGemmRows * kGemmRows + kGemmRows, rows.count) - 1;
    const std::size_t columns = std::min(round_up(rows.limit[last], kKeyBlock), round_up(end, kTile));
    float* row = s.strip + r * s.strip_stride;
    const float sink = rows.sink != nullptr ? rows.sink[r] : kMasked;
    const float maximum = std::max(sink, maximum_of(row, columns));
    const float sum =
        exponentials_of(row, columns, maximum) + (rows.sink != nullptr ? std::exp2(sink - maximum) : 0.0f);
    if (s.local != nullptr) s.local[r] = local_sum(maximum, sum, row[0]);
    s.sum[r] = 1.0f / sum;
    s.maximum[r] = weight[r] * s.sum[r];
  }
  for (std::size_t first = 0; first < end; first += kKeyBlock) {
    const std::size_t n = std::min(kKeyBlock, end - first);
    const std::size_t from = finished(rows, first);
    const float* p = s.strip + from * s.strip_stride + first;
    add_to_columns(p, s.strip_stride, rows.count - from, s.maximum + from, statistic, round_up(n, kTile),
                   column + first);
    values.widen(values.rows, first, n, s.wide);
    product(p, s.strip_stride, s.wide, kKeyBlock * kTile, out + from * row_size, row_size, rows.count - from,
            row_size, n, first != 0);
  }
  for (std::size_t r = 0; r < rows.count; ++r) scale_row(out + r * row_size, row_size, s.sum[r]);
}
