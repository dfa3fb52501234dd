// Keys, values and queries for kernels: stored by the library, read back as what a textbook may use.
#pragma once

#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include "support/attention.hpp"
#include "support/random.hpp"
#include "zeromerge/storage/any_rows.hpp"

namespace zeromerge::test {

inline std::size_t padded(std::size_t n) { return (n + 15) / 16 * 16; }

// Where q4 rows are: whole groups packed and the rest in 8 bits, the same reopened for another prompt with
// the rest in f16, or all in 8 bits.
enum class Packing { settled, reopened, none };

inline const char* name_of(Packing packing) {
  return packing == Packing::settled ? "" : packing == Packing::reopened ? " reopened" : " in no groups";
}

// n rows of dim elements in Rows (Keys or Values of a type).
template <class Rows>
struct StoredRows {
  std::size_t n, dim;
  ByteLedger ledger;
  Rows rows;
  std::vector<float> plain;  // [n][dim] as stored

  StoredRows(Random& random, std::size_t entries, std::size_t head_dim, Packing packing = Packing::settled)
      : n(entries), dim(head_dim), rows(head_dim, &ledger), plain(n * dim) {
    rows.resize(n);
    for (std::size_t j = 0; j < n; ++j) rows.write(j, normals(random, dim).data());
    rows.settle(n, n, packing == Packing::none ? LooseRows::kAll : 0);
    if (packing == Packing::reopened) rows.resize(n);
    for (std::size_t j = 0; j < n; ++j) rows.read(j, plain.data() + j * dim);
  }
  const float* row(std::size_t j) const { return plain.data() + j * dim; }
};
template <class K>
using StoredKeys = StoredRows<Keys<K>>;
template <class V>
using StoredValues = StoredRows<Values<V>>;

// Query rows [count][stride], dim padded with zeros, in natural units.
struct Queries {
  std::size_t count, dim, stride;
  std::vector<float> rows;

  Queries(Random& random, std::size_t n, std::size_t head_dim)
      : count(n), dim(head_dim), stride(padded(head_dim) + kernels::kQueryTail), rows(n * stride) {
    const double deviation = 2.0 / std::sqrt(static_cast<double>(dim));
    for (std::size_t r = 0; r < count; ++r)
      for (std::size_t d = 0; d < dim; ++d)
        rows[r * stride + d] = static_cast<float>(deviation * random.normal());
  }
  const float* row(std::size_t r) const { return rows.data() + r * stride; }

  // As kernels want them: logits in units of log 2.
  std::vector<float> scaled() const {
    std::vector<float> x = rows;
    for (float& y : x) y *= kernels::kLog2E;
    return x;
  }
};

// The textbook's answer for row q over the first `limit` entries. bias: [n] or empty.
template <class K, class V>
Attention expected_row(const float* q, const K& keys, const V& values, const std::vector<float>& bias,
                       std::size_t limit, double softcap) {
  return attention(
      q, keys.dim, limit, 1.0, softcap, [&](std::size_t j) { return keys.row(j); },
      [&](std::size_t j) { return values.row(j); },
      [&](std::size_t j) { return bias.empty() ? 0.0f : bias[j]; });
}

}  // namespace zeromerge::test
