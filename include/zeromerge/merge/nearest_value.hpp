// Value-only merging into the nearest key: the value of an entry that leaves goes to the entry s that stays
// and whose key is most like its own (NVIDIA/kvpress, pull request 219):
//   w_e = max(0, cos(k_e, k_s)) * |v_e| / (|v_e| + |v_s|)
//   v_s <- (v_s + sum over its leavers of w_e v_e) / (1 + sum of w_e)
// |v_s| is that before the merge, so the order of leavers does not matter. Keys stay as they are: what RoPE
// made of them is not mixed. Ties go to the lower slot. Cost: head_dim per leaver and entry that stays.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

#include "zeromerge/core/geometry.hpp"
#include "zeromerge/kernels/kernels.hpp"
#include "zeromerge/merge/drop.hpp"
#include "zeromerge/storage/head.hpp"

namespace zeromerge {

// In decode entries are dropped: finding the nearest there would cost a second attention.
class NearestValueMerge : public DropMerge {
 public:
  // Leavers: slots of `source`, which `target` does not hold. Both are of one kv head.
  template <class H>
  void absorb(const H& source, std::span<const std::size_t> leavers, H& target) const {
    if (target.size() == 0) return;
    const Stayers stayers(target);
    Sums sums(target);
    std::vector<float> keys(kBlock * target.row_size(), 0.0f);
    std::vector<float> products(kBlock * stayers.padded);
    for (std::size_t first = 0; first < leavers.size(); first += kBlock) {
      const std::size_t count = std::min(kBlock, leavers.size() - first);
      for (std::size_t i = 0; i < count; ++i)
        source.read_key(leavers[first + i], keys.data() + i * target.row_size());
      kernels::product(keys.data(), target.row_size(), stayers.panels.data(), stayers.row_size * 16,
                       products.data(), stayers.padded, count, stayers.padded, stayers.row_size, false);
      for (std::size_t i = 0; i < count; ++i) {
        const float* row = products.data() + i * stayers.padded;
        const auto nearest = static_cast<std::size_t>(std::max_element(row, row + target.size()) - row);
        const float length = length_of(keys.data() + i * target.row_size(), target.head_dim());
        if (row[nearest] > 0.0f) sums.add(source, leavers[first + i], nearest, row[nearest] / length);
      }
    }
    sums.write(target);
  }

 private:
  static constexpr std::size_t kBlock = 64;  // leavers that are compared at once

  static float length_of(const float* row, std::size_t n) noexcept {
    return std::sqrt(kernels::dot(row, row, n));
  }

  // Keys of length 1, or 0, in panels of 16 entries for product().
  struct Stayers {
    std::size_t row_size;
    std::size_t padded;
    std::vector<float> panels;  // [padded / 16][row_size][16]

    template <class H>
    explicit Stayers(const H& head)
        : row_size(head.row_size()),
          padded(kernels::round_up(head.size(), kernels::kTile)),
          panels(padded * row_size, 0.0f) {
      float key[kMaxHeadDim];
      for (std::size_t j = 0; j < head.size(); ++j) {
        head.read_key(j, key);
        const float length = length_of(key, head.head_dim());
        if (!(length > 0.0f)) continue;
        for (std::size_t d = 0; d < head.head_dim(); ++d)
          panels[j / 16 * 16 * row_size + d * 16 + j % 16] = key[d] / length;
      }
    }
  };

  // What the entries that stay are given.
  struct Sums {
    std::size_t dim;
    std::vector<float> norm;    // |v_s|
    std::vector<float> weight;  // sum of w_e
    std::vector<float> value;   // [entries][head_dim], sum of w_e v_e

    template <class H>
    explicit Sums(const H& head)
        : dim(head.head_dim()), norm(head.size()), weight(head.size(), 0.0f), value(head.size() * dim, 0.0f) {
      float row[kMaxHeadDim];
      for (std::size_t j = 0; j < norm.size(); ++j) {
        head.read_value(j, row);
        norm[j] = length_of(row, dim);
      }
    }

    template <class H>
    void add(const H& source, std::size_t leaver, std::size_t to, float cosine) noexcept {
      float row[kMaxHeadDim];
      source.read_value(leaver, row);
      const float length = length_of(row, dim);
      if (!(length > 0.0f)) return;
      const float w = cosine * length / (length + norm[to]);
      weight[to] += w;
      for (std::size_t d = 0; d < dim; ++d) value[to * dim + d] += w * row[d];
    }

    // Values that are given nothing are not written again: storage would round them once more.
    template <class H>
    void write(H& head) const {
      float row[kMaxHeadDim];
      for (std::size_t j = 0; j < weight.size(); ++j) {
        if (weight[j] == 0.0f) continue;
        head.read_value(j, row);
        for (std::size_t d = 0; d < dim; ++d) row[d] = (row[d] + value[j * dim + d]) / (1.0f + weight[j]);
        head.write_value(j, row);
      }
    }
  };
};

}  // namespace zeromerge
