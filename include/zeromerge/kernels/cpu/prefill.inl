// Blocked causal attention of many query rows over one kv head, with the column statistics of such rows. Rows
// of a group's query heads are stacked (row = token * group + g), so that every key and value is read once
// for all. Blocks of kKeyBlock entries are widened to f32 once and multiplied with all rows.

// Of the first rows, in whole steps of the product, how many see nothing from entry `first` on.
inline std::size_t finished(const PrefillRows& rows, std::size_t first) {
  std::size_t r = 0;
  while (r + Gemm::kRowStep <= rows.count && rows.limit[r + Gemm::kRowStep - 1] <= first) r += Gemm::kRowStep;
  return r;
}

// s[r][0 .. columns) for the key block at `first` and the rows from `from` on: dot products in units of log
// 2, soft-capped, biased, masked beyond the row's limit. q: all rows' queries as the products want them.
inline void block_logits(const Gemm& gemm, const PrefillRows& rows, const Left& q, std::size_t from,
                         const WideRows& keys, std::size_t first, std::size_t columns, float* wide, float* s,
                         std::size_t stride) {
  keys.widen(keys.rows, first, columns / kTile, wide);
  gemm.right(wide, columns / kTile, keys.size * kTile, keys.size);
  gemm.multiply(q.from(from), wide, keys.size * kTile, s + from * stride, stride, rows.count - from, columns,
                keys.size, false);
  finish_logits(rows, from, first, columns, s, stride);
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
  Vec other = top;
  std::size_t j = 16;
  for (; j + 32 <= columns; j += 32) {
    top = max(top, load(row + j));
    other = max(other, load(row + j + 16));
  }
  if (j < columns) top = max(top, load(row + j));
  return reduce_max(max(top, other));
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

// out (+)= p times the values of the block at `first`, for the rows from `from` on. space:
// [count][kKeyBlock], may be p.
inline void add_values(const Gemm& gemm, const PrefillRows& rows, std::size_t from, const WideRows& values,
                       std::size_t first, std::size_t n, float* wide, float* p, std::size_t stride,
                       float* space, float* out) {
  if (values.size == 0) return;
  values.widen(values.rows, first, n, wide);
  gemm.right(wide, values.size / kTile, kKeyBlock * kTile, n);
  const Left left = gemm.weights(p + from * stride, stride, rows.count - from, n, space + from * kKeyBlock);
  gemm.multiply(left, wide, kKeyBlock * kTile, out + from * values.size, values.size, rows.count - from,
                values.size, n, first != 0);
}

// Attention of the rows over all entries below each row's limit, with a running maximum. out: [count]
// [row_size].
inline void attend_rows(const PrefillRows& rows, const WideRows& keys, const WideRows& values,
                        PrefillScratch s, float* out) {
  const std::size_t row_size = values.size;
  const std::size_t end = rows.limit[rows.count - 1];
  std::fill_n(s.factor, kRowBlock, 0.0f);
  const Gemm gemm;
  const Left q = gemm.queries({rows.q, rows.q_stride}, rows.count, keys.size, s.rows);
  for (std::size_t first = 0; first < end; first += kKeyBlock) {
    const std::size_t n = std::min(kKeyBlock, end - first);
    const std::size_t columns = round_up(n, kTile);
    const std::size_t from = finished(rows, first);
    block_logits(gemm, rows, q, from, keys, first, columns, s.wide, s.logits, kKeyBlock);
    raise_maxima(rows, from, first, columns, s);
    for (std::size_t r = from; r < rows.count; ++r) {
      const float sum = exponentials_of(s.logits + r * kKeyBlock, columns, s.maximum[r]);
      if (first != 0 && s.factor[r] != 1.0f) scale_row(out + r * row_size, row_size, s.factor[r]);
      s.sum[r] = (first != 0 ? s.sum[r] : rows.sink != nullptr ? 1.0f : 0.0f) * s.factor[r] + sum;
      if (s.local != nullptr) s.local[r] = first != 0 ? s.local[r] * s.factor[r] : s.logits[r * kKeyBlock];
    }
    add_values(gemm, rows, from, values, first, n, s.wide, s.logits, kKeyBlock, s.logits, out);
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
  const Gemm gemm;
  const Left q = gemm.queries({rows.q, rows.q_stride}, rows.count, keys.size, s.rows);
  for (std::size_t first = 0; first < end; first += kKeyBlock)
    block_logits(gemm, rows, q, finished(rows, first), keys, first,
                 round_up(std::min(kKeyBlock, end - first), kTile), s.wide, s.strip + first, s.strip_stride);
  for (std::size_t r = 0; r < rows.count; ++r) {
    // Its blocks of logits end where the last of the rows that are multiplied together sees nothing more.
    const std::size_t last = std::min(r / Gemm::kRowStep * Gemm::kRowStep + Gemm::kRowStep, rows.count) - 1;
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
    add_values(gemm, rows, from, values, first, n, s.wide, s.strip + first, s.strip_stride, s.logits, out);
  }
  for (std::size_t r = 0; r < rows.count; ++r) scale_row(out + r * row_size, row_size, s.sum[r]);
}
