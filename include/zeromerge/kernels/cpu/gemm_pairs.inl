// Products of numbers rounded to bf16 (bf16_rows.inl) by instructions that multiply pairs of them.

// Two rows of depth at once: words are pairs of bf16.
struct MultiplyAddPairs {
  static ZEROMERGE_INLINE Vec step(Vec sum, Vec x, Vec w) {
    return {_mm512_dpbf16_ps(sum.v, (__m512bh)x.v, (__m512bh)w.v)};
  }
};

class CoarseGemm : public Bf16Operands {
 public:
  void multiply(const Left& left, const float* panels, float* c, std::size_t ldc, std::size_t rows,
                std::size_t columns, std::size_t size) const {
    product<MultiplyAddPairs>(left.rows, left.stride, panels, panel_floats(size), c, ldc, rows, columns,
                              (size + 1) / 2, false);
  }
};
