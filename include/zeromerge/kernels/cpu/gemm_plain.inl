// How the prefill of this level multiplies: the numbers as they are. See gemm_tiles.inl for a level that
// brings them into another form first.
struct Gemm {
  static constexpr std::size_t kRowStep = kGemmRows;  // rows that are multiplied together

  // Rows that multiply several blocks from the left, [rows][stride]; `space` has as much room.
  const float* left(const float* a, std::size_t, std::size_t, std::size_t, float*) const { return a; }
  // The same in place.
  void left(float*, std::size_t, std::size_t, std::size_t) const {}
  // `count` panels, `panel` floats apart, of `depth` rows, in place.
  void right(float*, std::size_t, std::size_t, std::size_t) const {}
  void multiply(const float* a, std::size_t lda, const float* b, std::size_t panel, float* c, std::size_t ldc,
                std::size_t rows, std::size_t columns, std::size_t depth, bool accumulate) const {
    product(a, lda, b, panel, c, ldc, rows, columns, depth, accumulate);
  }
};
