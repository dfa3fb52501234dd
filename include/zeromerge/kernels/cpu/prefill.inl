// Blocked causal attention of many query rows over one kv head, and the column statistics of such rows.
// Rows of a group's query heads are stacked (row = token * group + g), so that every key and value is read
// once for all. Blocks of kKeyBlock entries are widened to f32 once and multiplied with all rows.

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

// Widens `tiles` key tiles to [2 * pairs][kKeyBlock] f32.
template <class T>
inline void widen_keys(const T* keys, std::size_t tile_size, std::size_t pairs, std::size_t tiles,
                       float* wide) {
  for (std::size_t t = 0; t < tiles; ++t)
    for (std::size_t i = 0; i < pairs; ++i) {
      Vec even, odd;
      load_pair<T>(keys + t * tile_size + i * 32, even, odd);
      store(wide + 2 * i * kKeyBlock + t * 16, even);
      store(wide + (2 * i + 1) * kKeyBlock + t * 16, odd);
    }
}

template <class T>
inline void widen_values(const T* values, std::size_t row_size, std::size_t n, float* wide) {
  for (std::size_t x = 0; x < n * row_size; x += 16) store(wide + x, load_as<T>(values + x));
}

// s[r][0 .. columns) for the key block at `first`: scaled dot products, soft-capped, biased, masked beyond
// the row's limit.
template <class T>
inline void block_logits(const PrefillRows& rows, const KeysOf<T>& keys, std::size_t first,
                         std::size_t columns, float softcap, float* wide, float* s) {
  widen_keys(keys.tiles + first / kTile * keys.tile_size, keys.tile_size, keys.pairs, columns / kTile, wide);
  product(rows.q, rows.q_stride, wide, kKeyBlock, s, kKeyBlock, rows.count, columns, 2 * keys.pairs, false);
  for (std::size_t r = 0; r < rows.count; ++r) {
    float* row = s + r * kKeyBlock;
    if (softcap > 0.0f)
      for (std::size_t j = 0; j < columns; ++j) row[j] = softcap * std::tanh(row[j] / softcap);
    if (keys.bias != nullptr)
      for (std::size_t j = 0; j < columns; j += 16)
        store(row + j, add(load(row + j), load(keys.bias + first + j)));
    const std::size_t limit = rows.limit[r] > first ? rows.limit[r] - first : 0;
    for (std::size_t j = limit; j < columns; ++j) row[j] = kMasked;
  }
}

// Attention of the rows over all entries below each row's limit (at least 1). `scratch` holds kPrefillScratch
// floats per layout below; out rows are padded to row_size. lse[r] = log of the row's sum of exponentials.
template <class K, class V>
inline void attend_rows(const PrefillRows& rows, const KeysOf<K>& keys, const V* values, std::size_t row_size,
                        float softcap, PrefillScratch s, float* out, float* lse) {
  std::size_t end = 0;
  for (std::size_t r = 0; r < rows.count; ++r) {
    end = std::max(end, rows.limit[r]);
    s.maximum[r] = kMasked;
    s.sum[r] = 0.0f;
  }
  for (std::size_t first = 0; first < end; first += kKeyBlock) {
    const std::size_t n = std::min(kKeyBlock, end - first);
    const std::size_t columns = round_up(n, kTile);
    block_logits(rows, keys, first, columns, softcap, s.wide, s.logits);
    for (std::size_t r = 0; r < rows.count; ++r) {
      float* row = s.logits + r * kKeyBlock;
      Vec top = load(row);
      for (std::size_t j = 16; j < columns; j += 16) top = max(top, load(row + j));
      const float maximum = std::max(s.maximum[r], reduce_max(top));
      const Vec shift = set1(maximum);
      Vec sum = zero();
      for (std::size_t j = 0; j < columns; j += 16) {
        const Vec p = exp(sub(load(row + j), shift));
        store(row + j, p);
        sum = add(sum, p);
      }
      if (first != 0 && maximum > s.maximum[r]) {
        const Vec factor = exp(set1(s.maximum[r] - maximum));
        alignas(64) float f[16];
        store(f, factor);
        s.sum[r] *= f[0];
        for (std::size_t d = 0; d < row_size; d += 16)
          store(out + r * row_size + d, mul(load(out + r * row_size + d), factor));
      }
      s.maximum[r] = maximum;
      s.sum[r] += reduce_add(sum);
    }
    widen_values(values + first * row_size, row_size, n, s.wide);
    product(s.logits, kKeyBlock, s.wide, row_size, out, row_size, rows.count, row_size, n, first != 0);
  }
  for (std::size_t r = 0; r < rows.count; ++r) {
    const Vec inverse = set1(1.0f / s.sum[r]);
    for (std::size_t d = 0; d < row_size; d += 16)
      store(out + r * row_size + d, mul(load(out + r * row_size + d), inverse));
    lse[r] = s.maximum[r] + std::log(s.sum[r]);
  }
}

// column[j] += sum over rows of weight[r] * exp(logit[r][j] - lse[r]) for the key block at `first` (kKeyBlock
// columns).
template <class K>
inline void column_mass(const PrefillRows& rows, const float* weight, const float* lse, const KeysOf<K>& keys,
                        std::size_t first, std::size_t columns, float softcap, PrefillScratch s,
                        float* column) {
  block_logits(rows, keys, first, columns, softcap, s.wide, s.logits);
  for (std::size_t j = 0; j < columns; j += 16) {
    Vec sum = load(column + j);
    for (std::size_t r = 0; r < rows.count; ++r)
      sum = fma(exp(sub(load(s.logits + r * kKeyBlock + j), set1(lse[r]))), set1(weight[r]), sum);
    store(column + j, sum);
  }
}
