// Attention of one kv head for one new token, in segments of entries whose partial results (maximum, sum,
// output) combine exactly. Queries come scaled by kLog2E times the attention scale, so that logits are
// exponents of 2.

// Gets query rows [count][stride] ready for logits<T>: in place, once per step; the stride is at least dims
// rounded up to 16, and kQueryTail more. Through f32 they are ready as they are.
template <class T>
inline void prepare(float*, std::size_t, std::size_t, std::size_t) {}

// logits[g][j - first] = q[g].k[j] for `tiles` tiles from entry `first` (a multiple of kTile; of q4 groups)
// on; q: prepared rows [group][q_stride]. For q8 the row's scale is still to come.
template <class T>
inline void logits(const float* q, std::size_t q_stride, std::size_t group, const KeyTiles<T>& keys,
                   std::size_t first, std::size_t tiles, float* out, std::size_t out_stride,
                   const void* ahead) {
  with_convert<T>([&](auto op) {
    dot_rows<decltype(op)>(q, q_stride, group, keys.tile(first / kTile), keys.tile_size(),
                           keys.dims / pack_of<T>, tiles, out, out_stride, static_cast<const char*>(ahead));
  });
}

// In place: logits[0 .. n) become 2^(logit - maximum); what pads the last tile becomes 0. Before that each is
// multiplied with its scale (or 1), capped, and gets its bias (natural units). Returns the sum.
inline float exponentials(float* logits, std::size_t n, const float* scale, float softcap, const float* bias,
                          float& maximum) {
  const std::size_t padded = round_up(n, kTile);
  if (scale != nullptr)
    for (std::size_t j = 0; j < padded; j += 16) store(logits + j, mul(load(logits + j), load(scale + j)));
  if (softcap > 0.0f)
    for (std::size_t j = 0; j < padded; j += 16)
      store(logits + j, capped(load(logits + j), set1(softcap * kLog2E)));
  if (bias != nullptr)
    for (std::size_t j = 0; j < padded; j += 16)
      store(logits + j, fma(load(bias + j), set1(kLog2E), load(logits + j)));
  for (std::size_t j = n; j < padded; ++j) logits[j] = kMasked;
  Vec top = load(logits);
  for (std::size_t j = 16; j < padded; j += 16) top = max(top, load(logits + j));
  maximum = reduce_max(top);
  const Vec shift = set1(maximum);
  Vec sum = zero();
  for (std::size_t j = 0; j < padded; j += 16) {
    const Vec p = exp2(sub(load(logits + j), shift));
    store(logits + j, p);
    sum = add(sum, p);
  }
  return reduce_add(sum);
}

// out[g] = sum over the n entries (at most kSegment) from `first` (a multiple of kSegment) on of
// p[g][j - first] * v[j]; p: [group][p_stride], 0 behind the last entry up to the end of its tile; out:
// [group][row_size].
template <class T>
inline void weighted_sum(const float* p, std::size_t p_stride, std::size_t group, const ValueRows<T>& values,
                         std::size_t first, std::size_t n, float* out, const void* ahead) {
  with_convert<T>([&](auto op) {
    weigh_rows<decltype(op)>(p, p_stride, group, values.row(first), values.row_size,
                             (n + pack_of<T> - 1) / pack_of<T>, out, static_cast<const char*>(ahead));
  });
}
