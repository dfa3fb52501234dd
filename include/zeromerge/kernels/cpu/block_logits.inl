// What products of queries and keys become before they are logits, in units of log 2: soft-capped, biased,
// masked beyond the row's limit. s: [rows.count][stride], of the key block at `first`, from row `from` on.
inline void finish_logits(const PrefillRows& rows, std::size_t from, std::size_t first, std::size_t columns,
                          float* s, std::size_t stride) {
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
