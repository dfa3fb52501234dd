// Products of f32 matrices, the right one in panels of 16 columns.

// A step of them for 16 columns; see gemm_pairs.inl for one that takes two rows of depth at once.
struct MultiplyAdd {
  static ZEROMERGE_INLINE Vec step(Vec sum, Vec x, Vec w) { return fma(x, w, sum); }
};

// The left one.
struct Left {
  const float* rows;
  std::size_t stride;

  Left from(std::size_t row) const { return {rows + row * stride, stride}; }
};

// C[r][0 .. 16 * N) (+)= sum over k of A[r][k] * B[k][0 .. 16 * N) for R rows; b: N panels.
template <class Multiply, int R, int N>
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
      for (int n = 0; n < N; ++n) sum[r][n] = Multiply::step(sum[r][n], x[n], w);
    }
  }
  ZEROMERGE_UNROLL
  for (int r = 0; r < R; ++r) {
    ZEROMERGE_UNROLL
    for (int n = 0; n < N; ++n) store(c + static_cast<std::size_t>(r) * ldc + n * 16, sum[r][n]);
  }
}

template <class Multiply, int R>
inline void product_rows(const float* a, std::size_t lda, const float* b, std::size_t panel, float* c,
                         std::size_t ldc, std::size_t columns, std::size_t depth, bool accumulate) {
  std::size_t n = 0;
  for (; n + 16 * kGemmVectors <= columns; n += 16 * kGemmVectors)
    product_block<Multiply, R, kGemmVectors>(a, lda, b + n / 16 * panel, panel, c + n, ldc, depth,
                                             accumulate);
  for (; n < columns; n += 16)
    product_block<Multiply, R, 1>(a, lda, b + n / 16 * panel, panel, c + n, ldc, depth, accumulate);
}

// C = A B or C += A B. columns: a multiple of 16; b: panels of 16 columns, `panel` floats apart.
template <class Multiply = MultiplyAdd>
inline void product(const float* a, std::size_t lda, const float* b, std::size_t panel, float* c,
                    std::size_t ldc, std::size_t rows, std::size_t columns, std::size_t depth,
                    bool accumulate) {
  std::size_t r = 0;
  for (; r + kGemmRows <= rows; r += kGemmRows)
    product_rows<Multiply, kGemmRows>(a + r * lda, lda, b, panel, c + r * ldc, ldc, columns, depth,
                                      accumulate);
  for (; kGemmRows > 2 && r + 2 <= rows; r += 2)
    product_rows<Multiply, 2>(a + r * lda, lda, b, panel, c + r * ldc, ldc, columns, depth, accumulate);
  for (; r < rows; ++r)
    product_rows<Multiply, 1>(a + r * lda, lda, b, panel, c + r * ldc, ldc, columns, depth, accumulate);
}
