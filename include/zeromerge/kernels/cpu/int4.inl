// q4 through f32. x = minimum + scale * nibble, so that a product needs the nibbles times scaled factors and
// the factors times minima once:
//   logits   the factor of a channel is q[d] * scale[d], the rest sum q[d] * minimum[d], both once per 32
//   entries outputs  the weight of an entry is p[j] * scale[j], the rest sum p[j] * minimum[j], once per 64
//   channels

// Logits of 32 entries for G rows: out[g][0 .. 32).
template <int G>
inline void int4_logits(const float* q, std::size_t q_stride, const KeyTiles<q4>& keys,
                        const unsigned char* group, float* out, std::size_t out_stride, const char* ahead) {
  alignas(64) float factor[G][kMaxHeadDim];
  const f16* scale = keys.scales(group);
  Vec sum[G][2];
  ZEROMERGE_UNROLL
  for (int g = 0; g < G; ++g) {
    const float* row = q + static_cast<std::size_t>(g) * q_stride;
    Vec rest = zero();
    for (std::size_t d = 0; d < keys.dims; d += 16) {
      store(factor[g] + d, mul(load(row + d), load_as<f16>(scale + d)));
      rest = fma(load(row + d), load_as<f16>(scale + keys.dims + d), rest);
    }
    sum[g][0] = sum[g][1] = set1(reduce_add(rest));
  }
  for (std::size_t m = 0; m < keys.dims; m += 4, group += 64) {
    prefetch(ahead + m * 16);
    const Vec x[2][4] = {{nibbles<0>(group), nibbles<8>(group), nibbles<16>(group), nibbles<24>(group)},
                         {nibbles<4>(group), nibbles<12>(group), nibbles<20>(group), nibbles<28>(group)}};
    ZEROMERGE_UNROLL
    for (int g = 0; g < G; ++g) {
      ZEROMERGE_UNROLL
      for (int d = 0; d < 4; ++d) {
        const Vec f = set1(factor[g][m + static_cast<std::size_t>(d)]);
        sum[g][0] = fma(x[0][d], f, sum[g][0]);
        sum[g][1] = fma(x[1][d], f, sum[g][1]);
      }
    }
  }
  ZEROMERGE_UNROLL
  for (int g = 0; g < G; ++g) {
    store(out + static_cast<std::size_t>(g) * out_stride, sum[g][0]);
    store(out + static_cast<std::size_t>(g) * out_stride + 16, sum[g][1]);
  }
}

// Outputs of the 32 (or, the last, 16) channels from d on for G rows.
template <int G>
inline void int4_channels(const float* p, std::size_t p_stride, const ValueRows<q4>& values,
                          std::size_t first, std::size_t n, std::size_t d, float* out, const char* ahead) {
  const std::size_t width = std::min<std::size_t>(2, (values.row_size - d) / 16);
  Vec sum[G][2];
  Vec rest[G];
  ZEROMERGE_UNROLL
  for (int g = 0; g < G; ++g) sum[g][0] = sum[g][1] = rest[g] = zero();
  const std::size_t bytes = ValueRows<q4>::tile_bytes(values.row_size);
  for (std::size_t j = 0; j < n; j += kTile) {
    const unsigned char* tile = values.tile((first + j) / kTile);
    const f16* scale = values.scales(tile, d / kChannels);
    alignas(64) float weight[G][16];
    ZEROMERGE_UNROLL
    for (int g = 0; g < G; ++g) {
      const Vec w = load(p + static_cast<std::size_t>(g) * p_stride + j);
      store(weight[g], mul(w, load_as<f16>(scale)));
      rest[g] = fma(w, load_as<f16>(scale + kTile), rest[g]);
    }
    for (std::size_t line = 0; d == 0 && line < bytes; line += 64) prefetch(ahead + j / kTile * bytes + line);
    for (std::size_t c = 0; c < width; ++c) {
      ZEROMERGE_UNROLL
      for (std::size_t octet = 0; octet < 2; ++octet) {
        const unsigned char* at = tile + (octet * values.row_size + d + 16 * c) * 4;
        const Vec x[8] = {nibbles<0>(at), nibbles<8>(at),  nibbles<16>(at), nibbles<24>(at),
                          nibbles<4>(at), nibbles<12>(at), nibbles<20>(at), nibbles<28>(at)};
        ZEROMERGE_UNROLL
        for (int g = 0; g < G; ++g) {
          ZEROMERGE_UNROLL
          for (int e = 0; e < 8; ++e)
            sum[g][c] = fma(x[e], set1(weight[g][octet * 8 + static_cast<std::size_t>(e)]), sum[g][c]);
        }
      }
    }
  }
  ZEROMERGE_UNROLL
  for (int g = 0; g < G; ++g) {
    const Vec constant = set1(reduce_add(rest[g]));
    for (std::size_t c = 0; c < width; ++c)
      store(out + static_cast<std::size_t>(g) * values.row_size + d + 16 * c, add(sum[g][c], constant));
  }
}

// Outputs of the up to 64 channels that share scale s for G rows; p is 0 behind the last entry.
template <int G>
inline void int4_outputs(const float* p, std::size_t p_stride, const ValueRows<q4>& values, std::size_t first,
                         std::size_t n, std::size_t s, float* out, const char* ahead) {
  const std::size_t end = std::min(values.row_size, (s + 1) * kChannels);
  for (std::size_t d = s * kChannels; d < end; d += 32)
    int4_channels<G>(p, p_stride, values, first, n, d, out, ahead);
}
