// Stored entries as f32 for the products of a prefill: in panels of 16 columns, each [rows][16], so that a
// product reads them in one stream.

// `tiles` tiles of keys from entry `first` on, as f32 panels [tiles][dims][16].
template <class T>
inline void widen_keys(const KeyTiles<T>& keys, std::size_t first, std::size_t tiles, float* wide) {
  constexpr std::size_t kPack = pack_of<T>;
  for (std::size_t t = 0; t < tiles; ++t) {
    const stored<T>* at = keys.tile(first / kTile + t);
    for (std::size_t d = 0; d < keys.dims; d += kPack) {
      Vec part[kPack];
      load_pack<T>(at + d * kTile, part);
      for (std::size_t k = 0; k < kPack; ++k) {
        if constexpr (std::is_same_v<T, q8>) part[k] = mul(part[k], load(keys.scale + first + t * kTile));
        store(wide + (t * keys.dims + d + k) * kTile, part[k]);
      }
    }
  }
}

template <>
inline void widen_keys<q4>(const KeyTiles<q4>& keys, std::size_t first, std::size_t tiles, float* wide) {
  for (std::size_t t = 0; t < tiles; ++t) {
    const std::size_t entry = first + t * kTile;
    if (entry >= keys.packed) {
      float* panel = wide + t * keys.dims * kTile;
      if (keys.settled)
        widen_keys<q8>(keys.narrow, entry - keys.packed, 1, panel);
      else
        widen_keys<f16>(keys.wide, entry - keys.packed, 1, panel);
      const std::size_t dims = keys.settled ? keys.narrow.dims : keys.wide.dims;  // padded less
      std::fill_n(panel + dims * kTile, (keys.dims - dims) * kTile, 0.0f);
      continue;
    }
    const unsigned char* group = keys.group(entry / kGroup);
    const f16* scale = keys.scales(group);
    for (std::size_t d = 0; d < keys.dims; d += 4, group += 64) {
      const bool second = entry / kTile % 2 != 0;
      const Vec x[4] = {
          second ? nibbles<4>(group) : nibbles<0>(group), second ? nibbles<12>(group) : nibbles<8>(group),
          second ? nibbles<20>(group) : nibbles<16>(group), second ? nibbles<28>(group) : nibbles<24>(group)};
      for (std::size_t k = 0; k < 4; ++k)
        store(wide + (t * keys.dims + d + k) * kTile,
              fma(x[k], set1(to_f32(scale[d + k])), set1(to_f32(scale[keys.dims + d + k]))));
    }
  }
}

// n rows of values from entry `first` on, as f32 panels [row_size / 16][kKeyBlock][16], of which n rounded up
// to pack rows are written.
template <class T>
inline void widen_values(const ValueRows<T>& values, std::size_t first, std::size_t n, float* wide) {
  constexpr std::size_t kPack = pack_of<T>;
  for (std::size_t j = 0; j < n; j += kPack) {
    const stored<T>* at = values.row(first + j);
    for (std::size_t d = 0; d < values.row_size; d += 16) {
      Vec part[kPack];
      load_pack<T>(at + d * kPack, part);
      for (std::size_t k = 0; k < kPack; ++k) {
        if constexpr (std::is_same_v<T, q8>) part[k] = mul(part[k], set1(values.scale[first + j + k]));
        store(wide + (d / kTile * kKeyBlock + j + k) * kTile, part[k]);
      }
    }
  }
}

template <>
inline void widen_values<q4>(const ValueRows<q4>& values, std::size_t first, std::size_t n, float* wide) {
  for (std::size_t j = 0; j < n; j += kTile, wide += kTile * kTile) {
    if (first + j >= values.packed)
      return values.settled ? widen_values<q8>(values.narrow, first + j - values.packed, n - j, wide)
                            : widen_values<f16>(values.wide, first + j - values.packed, n - j, wide);
    const unsigned char* tile = values.tile((first + j) / kTile);
    for (std::size_t d = 0; d < values.row_size; d += 16) {
      const f16* scale = values.scales(tile, d / kChannels);
      for (std::size_t octet = 0; octet < 2; ++octet) {
        const unsigned char* at = tile + (octet * values.row_size + d) * 4;
        const Vec x[8] = {nibbles<0>(at), nibbles<8>(at),  nibbles<16>(at), nibbles<24>(at),
                          nibbles<4>(at), nibbles<12>(at), nibbles<20>(at), nibbles<28>(at)};
        for (std::size_t e = 0; e < 8; ++e) {
          const std::size_t entry = octet * 8 + e;
          store(wide + (d / kTile * kKeyBlock + entry) * kTile,
                fma(x[e], set1(to_f32(scale[entry])), set1(to_f32(scale[kTile + entry]))));
        }
      }
    }
  }
}

// The same without the type.
template <class T>
inline void widen_any_keys(const void* keys, std::size_t first, std::size_t tiles, float* wide) {
  widen_keys<T>(*static_cast<const KeyTiles<T>*>(keys), first, tiles, wide);
}
template <class T>
inline void widen_any_values(const void* values, std::size_t first, std::size_t n, float* wide) {
  widen_values<T>(*static_cast<const ValueRows<T>*>(values), first, n, wide);
}
