// What each entry gets at most of rows that all see the same entries: a score, which ranks and is no output,
// from products as coarse as the level likes them.

inline void make_panels(const WideRows& keys, std::size_t entries, float* panels) {
  for (std::size_t first = 0; first < entries;
       first += kTile, panels += CoarseGemm::panel_floats(keys.size)) {
    keys.widen(keys.rows, first, 1, panels);
    CoarseGemm::pack(panels, keys.size);
  }
}

// Of a block of logits [rows][kKeyBlock], `columns` of each row, a multiple of 16: in each of 16 lanes the
// largest so far and the sum of 2^(x - largest). largest, sum: [rows][16].
inline void add_exponentials(const float* s, std::size_t rows, std::size_t columns, float* largest,
                             float* sum) {
  for (std::size_t r = 0; r < rows; ++r, s += kKeyBlock, largest += 16, sum += 16) {
    const Vec before = load(largest);
    Vec top = before;
    for (std::size_t j = 0; j < columns; j += 16) top = max(top, load(s + j));
    Vec total = mul(load(sum), exp2(sub(before, top)));
    for (std::size_t j = 0; j < columns; j += 16) total = add(total, exp2(sub(load(s + j), top)));
    store(largest, top);
    store(sum, total);
  }
}

// The log, base 2, of a row's sum of exponentials from what its lanes have.
inline float log_sum(const float* largest, const float* sum) {
  const float top = reduce_max(load(largest));
  return top + std::log2(reduce_add(mul(load(sum), exp2(sub(load(largest), set1(top))))));
}

// column[j] becomes the largest of itself and 2^(s[r][j] - shift[r]), for N vectors of columns of a block.
template <std::size_t N>
ZEROMERGE_INLINE void largest_differences(const float* s, std::size_t rows, const float* shift,
                                          float* column) {
  Vec top[N];
  ZEROMERGE_UNROLL
  for (std::size_t i = 0; i < N; ++i) top[i] = set1(kMasked);
  for (std::size_t r = 0; r < rows; ++r) {
    const Vec x = set1(shift[r]);
    ZEROMERGE_UNROLL
    for (std::size_t i = 0; i < N; ++i) top[i] = max(top[i], sub(load(s + r * kKeyBlock + 16 * i), x));
  }
  ZEROMERGE_UNROLL
  for (std::size_t i = 0; i < N; ++i) store(column + 16 * i, max(load(column + 16 * i), exp2(top[i])));
}

// column[j] becomes the largest of itself and probability[r][j]. Only sums need an exponential of every
// logit; of a column the largest difference to its row's log-sum-exp does. s.strip: the logits block by
// block, [entries padded to kKeyBlock / kKeyBlock][count][kKeyBlock], so that a block lies in few pages.
inline void column_maxima(const PrefillRows& rows, const KeyPanels& keys, PrefillScratch s, float* column) {
  const std::size_t columns = round_up(rows.limit[0], kTile);
  const std::size_t count = rows.count;
  float* largest = s.logits;
  float* sum = s.logits + count * 16;
  // A sink takes part in the sum of one lane.
  std::fill_n(largest, count * 16, kMasked);
  std::fill_n(sum, count * 16, 0.0f);
  for (std::size_t r = 0; rows.sink != nullptr && r < count; ++r) {
    largest[r * 16] = rows.sink[r];
    sum[r * 16] = 1.0f;
  }
  const CoarseGemm gemm;
  const Left q = gemm.queries({rows.q, rows.q_stride}, count, keys.size, s.rows);
  const auto blocks = [&](const auto& work) {
    for (std::size_t first = 0; first < columns; first += kKeyBlock)
      work(first, std::min(kKeyBlock, columns - first), s.strip + first * count);
  };
  blocks([&](std::size_t first, std::size_t width, float* block) {
    gemm.multiply(q, keys.panels + first / kTile * gemm.panel_floats(keys.size), block, kKeyBlock, count,
                  width, keys.size);
    finish_logits(rows, 0, first, width, block, kKeyBlock);
    add_exponentials(block, count, width, largest, sum);
  });
  for (std::size_t r = 0; r < count; ++r) s.sum[r] = log_sum(largest + r * 16, sum + r * 16);
  blocks([&](std::size_t first, std::size_t width, float* block) {
    if (width == kKeyBlock) return largest_differences<kKeyBlock / 16>(block, count, s.sum, column + first);
    for (std::size_t j = 0; j < width; j += 16)
      largest_differences<1>(block + j, count, s.sum, column + first + j);
  });
}
