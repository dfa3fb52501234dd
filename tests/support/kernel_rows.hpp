// Keys and values in the layout that kernels read, packed independently of Head, with everything that no
// kernel may use filled with NaN.
#pragma once

#include <cstddef>
#include <vector>

#include "support/attention.hpp"
#include "support/random.hpp"
#include "support/rounding.hpp"
#include "zeromerge/kernels/kernels.hpp"

namespace zeromerge::test {

inline std::size_t padded(std::size_t n) { return (n + 15) / 16 * 16; }

template <class T>
T not_a_number() {
  if constexpr (sizeof(T) == 2) return T{0x7fff};
  return from_f32<T>(std::nanf(""));
}

// n keys of dim elements: tiles of 16 entries, [pairs][16][2] for 16-bit types, [2 * pairs][16] for f32. An
// odd dim is padded with zeros, places behind the last entry with NaN.
template <class K>
struct PackedKeys {
  std::size_t n, dim, pairs, tile_size;
  std::vector<float> plain;  // [n][dim] as kept
  std::vector<float> bias;   // [n padded]
  std::vector<K> tiles;

  PackedKeys(Random& random, std::size_t entries, std::size_t head_dim, bool biased)
      : n(entries), dim(head_dim), pairs((head_dim + 1) / 2), tile_size(pairs * 32) {
    plain = kept_as<K>(normals(random, n * dim));
    tiles.assign(padded(n) / 16 * tile_size, not_a_number<K>());
    for (std::size_t j = 0; j < n; ++j)
      for (std::size_t d = 0; d < 2 * pairs; ++d) {
        const std::size_t place = sizeof(K) == 2 ? d / 2 * 32 + j % 16 * 2 + d % 2 : d * 16 + j % 16;
        tiles[j / 16 * tile_size + place] = from_f32<K>(d < dim ? plain[j * dim + d] : 0.0f);
      }
    if (!biased) return;
    bias = normals(random, n);
    bias.resize(padded(n), std::nanf(""));
  }

  kernels::KeysOf<K> view() const {
    return {tiles.data(), tile_size, pairs, bias.empty() ? nullptr : bias.data()};
  }
  const float* row(std::size_t j) const { return plain.data() + j * dim; }
  double bias_of(std::size_t j) const { return bias.empty() ? 0.0 : static_cast<double>(bias[j]); }
};

// n value rows, dim padded to 16 with zeros.
template <class V>
struct PackedValues {
  std::size_t dim, row_size;
  std::vector<float> plain;  // [n][dim] as kept
  std::vector<V> rows;       // [n][row_size]

  PackedValues(Random& random, std::size_t n, std::size_t head_dim)
      : dim(head_dim), row_size(padded(head_dim)) {
    plain = kept_as<V>(normals(random, n * dim));
    rows.assign(n * row_size, from_f32<V>(0.0f));
    for (std::size_t j = 0; j < n; ++j)
      for (std::size_t d = 0; d < dim; ++d) rows[j * row_size + d] = from_f32<V>(plain[j * dim + d]);
  }
  const float* row(std::size_t j) const { return plain.data() + j * dim; }
};

// Query rows [count][stride], dim padded with zeros.
struct PackedQueries {
  std::size_t stride;
  std::vector<float> rows;

  PackedQueries(Random& random, std::size_t count, std::size_t dim)
      : stride(padded(dim)), rows(count * stride) {
    const double deviation = 2.0 / std::sqrt(static_cast<double>(dim));
    for (std::size_t r = 0; r < count; ++r)
      for (std::size_t d = 0; d < dim; ++d)
        rows[r * stride + d] = static_cast<float>(deviation * random.normal());
  }
  const float* row(std::size_t r) const { return rows.data() + r * stride; }
};

// The textbook's answer for row q over the first `limit` entries.
template <class K, class V>
Attention expected_row(const float* q, const PackedKeys<K>& keys, const PackedValues<V>& values,
                       std::size_t limit, double softcap) {
  return attention(
      q, keys.dim, limit, 1.0, softcap, [&](std::size_t j) { return keys.row(j); },
      [&](std::size_t j) { return values.row(j); }, [&](std::size_t j) { return keys.bias_of(j); });
}

}  // namespace zeromerge::test
