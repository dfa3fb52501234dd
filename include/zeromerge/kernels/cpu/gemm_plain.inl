// How the prefill of this level multiplies: the numbers as they are. See gemm_tiles.inl for a level that
// brings them into another form first.
struct Gemm {
  static constexpr std::size_t kRowStep = kGemmRows;  // rows that are multiplied together

  // Query rows; where they take another form it goes to `space` [rows][stride].
  Left queries(Left q, std::size_t, std::size_t, float*) const { return q; }
  // Weights of n entries, of whose rows what stands behind them may change up to a multiple of 32; another
  // form goes to `space` [rows][kKeyBlock], which may be where they are.
  Left weights(float* p, std::size_t stride, std::size_t, std::size_t, float*) const { return {p, stride}; }
  // `count` panels, `panel` floats apart, of `depth` rows, in place.
  void right(float*, std::size_t, std::size_t, std::size_t) const {}
  void multiply(const Left& a, const float* b, std::size_t panel, float* c, std::size_t ldc, std::size_t rows,
                std::size_t columns, std::size_t depth, bool accumulate) const {
    product(a.rows, a.stride, b, panel, c, ldc, rows, columns, depth, accumulate);
  }
};

// The same for logits that only rank entries, so that a level may round what it multiplies: of column_maxima.
struct CoarseGemm {
  // From a panel of 16 keys of `size` channels to the next, at most panel_depth(size) * 16.
  static constexpr std::size_t panel_floats(std::size_t size) { return size * kTile; }

  static Left queries(const Left& q, std::size_t, std::size_t, float*) { return q; }
  // Of a panel [size][16], in place, with room for panel_depth(size) rows.
  static void pack(float*, std::size_t) {}
  void multiply(const Left& q, const float* panels, float* c, std::size_t ldc, std::size_t rows,
                std::size_t columns, std::size_t size) const {
    product(q.rows, q.stride, panels, panel_floats(size), c, ldc, rows, columns, size, false);
  }
};
