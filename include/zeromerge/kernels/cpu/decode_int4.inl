// logits and weighted_sum of q4: whole groups, then the rows behind them. Its queries come as f32 rows. Names
// in parentheses are those of this instruction set, not what chooses one.

// Of rows behind the groups, whose first is number `first`. In 8 bits their scales are multiplied here, and
// queries made ready for them, as many at a time as products take in one go.
inline void tail_logits(const float* q, std::size_t q_stride, std::size_t group, const KeyTiles<q4>& keys,
                        std::size_t first, std::size_t tiles, float* out, std::size_t out_stride,
                        const void* ahead) {
  if (!keys.settled)
    return (logits<f16>)(q, q_stride, group, keys.wide, first, tiles, out, out_stride, ahead);
  constexpr std::size_t kRows = 8;
  alignas(64) float ready[kRows * (kMaxHeadDim + kQueryTail)];
  const KeyTiles<q8>& narrow = keys.narrow;
  const std::size_t stride = round_up(narrow.dims, 16) + kQueryTail;
  for (std::size_t g = 0; g < group; g += kRows) {
    const std::size_t rows = std::min(kRows, group - g);
    for (std::size_t r = 0; r < rows; ++r) std::copy_n(q + (g + r) * q_stride, stride, ready + r * stride);
    (prepare<q8>)(ready, stride, rows, narrow.dims);
    (logits<q8>)(ready, stride, rows, narrow, first, tiles, out + g * out_stride, out_stride,
                 g == 0 ? ahead : nullptr);
  }
  for (std::size_t g = 0; g < group; ++g)
    for (std::size_t j = 0; j < tiles * kTile; j += kTile) {
      float* at = out + g * out_stride + j;
      store(at, mul(load(at), load(narrow.scale + first + j)));
    }
}

inline void tail_sum(const float* p, std::size_t p_stride, std::size_t group, const ValueRows<q4>& values,
                     std::size_t first, std::size_t n, float* out, const void* ahead) {
  if (values.settled)
    (weighted_sum<q8>)(p, p_stride, group, values.narrow, first, n, out, ahead);
  else
    (weighted_sum<f16>)(p, p_stride, group, values.wide, first, n, out, ahead);
}

template <>
inline void logits<q4>(const float* q, std::size_t q_stride, std::size_t group, const KeyTiles<q4>& keys,
                       std::size_t first, std::size_t tiles, float* out, std::size_t out_stride,
                       const void* ahead) {
  const std::size_t end = first + tiles * kTile;
  const std::size_t packed = std::min(std::max(keys.packed, first), end);
  const std::size_t bytes = KeyTiles<q4>::group_bytes(keys.dims);
  for (std::size_t j = first; j < packed; j += kGroup) {
    const unsigned char* at = keys.group(j / kGroup);
    const bool cut = j + kGroup > end;  // of a group that was truncated the first tile alone has room
    in_fours(group, [&](auto count, std::size_t g) {
      constexpr std::size_t kRows = decltype(count)::value;
      const char* next = g == 0 && ahead != nullptr
                             ? static_cast<const char*>(ahead) + (j - first) / kGroup * bytes
                             : reinterpret_cast<const char*>(at);
      alignas(64) float whole[kRows][kGroup];
      float* to = out + g * out_stride + (j - first);
      int4_logits<decltype(count)::value>(q + g * q_stride, q_stride, keys, at, cut ? whole[0] : to,
                                          cut ? kGroup : out_stride, next);
      for (std::size_t r = 0; cut && r < kRows; ++r) std::copy_n(whole[r], kTile, to + r * out_stride);
    });
  }
  if (packed < end)
    tail_logits(q, q_stride, group, keys, packed - keys.packed, (end - packed) / kTile,
                out + (packed - first), out_stride, packed == first ? ahead : nullptr);
}

template <>
inline void weighted_sum<q4>(const float* p, std::size_t p_stride, std::size_t group,
                             const ValueRows<q4>& values, std::size_t first, std::size_t n, float* out,
                             const void* ahead) {
  const std::size_t packed = std::min(std::max(values.packed, first), first + n) - first;
  const char* next = static_cast<const char*>(ahead);
  if (packed != 0)
    in_fours(group, [&](auto count, std::size_t g) {
      for (std::size_t s = 0; s < ValueRows<q4>::scale_groups(values.row_size); ++s)
        int4_outputs<decltype(count)::value>(
            p + g * p_stride, p_stride, values, first, packed, s, out + g * values.row_size,
            g == 0 && next != nullptr ? next : reinterpret_cast<const char*>(values.tile(first / kTile)));
    });
  if (packed == n) return;
  if (packed == 0) return tail_sum(p, p_stride, group, values, first - values.packed, n, out, ahead);
  alignas(64) float rest[kMaxHeadDim];
  for (std::size_t g = 0; g < group; ++g) {
    tail_sum(p + packed + g * p_stride, p_stride, 1, values, 0, n - packed, rest, nullptr);
    for (std::size_t d = 0; d < values.row_size; d += 16)
      store(out + g * values.row_size + d, add(load(out + g * values.row_size + d), load(rest + d)));
  }
}
