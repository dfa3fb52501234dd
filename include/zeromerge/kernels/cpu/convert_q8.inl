// q8 through f32.

// Values with a scale per row: the scale goes into the weights.
template <>
inline void weighted_sum<q8>(const float* p, std::size_t p_stride, std::size_t group,
                             const ValueRows<q8>& values, std::size_t first, std::size_t n, float* out,
                             const void* ahead) {
  alignas(64) float weight[4 * kSegment];
  for (std::size_t g = 0; g < group; g += 4) {
    const std::size_t heads = std::min<std::size_t>(4, group - g);
    for (std::size_t h = 0; h < heads; ++h)
      for (std::size_t j = 0; j < n; j += 16)
        store(weight + h * kSegment + j,
              mul(load(p + (g + h) * p_stride + j), load(values.scale + first + j)));
    weigh_rows<Convert<q8>>(weight, kSegment, heads, values.row(first), values.row_size, (n + 3) / 4,
                            out + g * values.row_size, g == 0 ? static_cast<const char*>(ahead) : nullptr);
  }
}
