// Keys rounded to four bits so that the logits of the queries to come move least. To the nearest code, each
// channel's error stands alone; here the channels that are rounded later take up what the earlier ones did to
// q.k. With e = k - k~ the mean square of the logits' errors over reference queries Q~ is
//   e' C e      C = Q~'Q~ / rows + lambda I = L L'      lambda = damping * the mean of the diagonal
// and channel by channel, those that queries weigh most first, the code nearest to
//   k_i + (sum over j > i of L_ji e_j) / L_ii
// is the best that the rest still allows (optimal brain quantisation as in GPTQ, arXiv 2210.17323, which is
// Babai's nearest plane; there for a layer's weights and its inputs). Grids are the storage's own
// (codec_q4.hpp): the least and the largest of a channel in a group of 32 keep the ends of its grid.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <numeric>
#include <vector>

#include "zeromerge/merge/reference_queries.hpp"
#include "zeromerge/merge/ridge.hpp"

namespace zeromerge {

// The damping for moments of so many reference rows. Few rows leave directions that none of them sees, where
// keys would be free to move and later queries may look. On random queries of which a few directions are
// common (64 and 128 channels, 1 to 1,536 rows) this is within a tenth of the damping that harms the logits
// of other queries of their kind least, or better than no more than 0.01: with half as many rows as channels
// by a quarter to a half. From some five rows a channel on it makes no difference and stays at 0.01.
inline float key_damping(std::size_t rows, std::size_t head_dim) noexcept {
  const float sparse = static_cast<float>(head_dim) / static_cast<float>(std::max<std::size_t>(rows, 1));
  return std::clamp(0.25f * sparse * sparse, 0.01f, 0.5f);
}

// Of one kv head.
class KeyRounding {
 public:
  // moments: Q~'Q~ / rows, [head_dim][head_dim] symmetric. Without any (all 0) codes are the nearest.
  explicit KeyRounding(const RowMatrix& moments, float damping = 0.01f) : order_(moments.rows) {
    const std::size_t n = moments.rows;
    std::iota(order_.begin(), order_.end(), std::size_t{0});
    std::stable_sort(order_.begin(), order_.end(),
                     [&](std::size_t a, std::size_t b) { return moments.row(a)[a] < moments.row(b)[b]; });
    double trace = 0.0;
    for (std::size_t i = 0; i < n; ++i) trace += static_cast<double>(moments.row(i)[i]);
    const auto lambda = static_cast<float>(static_cast<double>(damping) * trace / static_cast<double>(n));
    RowMatrix lower(n, n);
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j <= i; ++j) lower.row(i)[j] = moments.row(order_[i])[order_[j]];
      lower.row(i)[i] += lambda;
    }
    if (lambda > 0.0f && detail::cholesky(lower)) upper_ = detail::transposed(lower);
  }

  // The whole groups of a head's keys, the last `loose` aside, become what the storage will make of them when
  // it packs them.
  template <class H>
  void round(H& head, std::size_t loose) const {
    std::vector<float> keys(kernels::kGroup * order_.size());
    for (std::size_t first = 0; first + kernels::kGroup + loose <= head.size(); first += kernels::kGroup) {
      for (std::size_t j = 0; j < kernels::kGroup; ++j)
        head.read_key(first + j, keys.data() + j * order_.size());
      round_group(keys.data());
      for (std::size_t j = 0; j < kernels::kGroup; ++j)
        head.write_key(first + j, keys.data() + j * order_.size());
    }
  }

  // keys: [32][head_dim], in place.
  void round_group(float* keys) const {
    const std::size_t n = order_.size();
    std::vector<Grid> grids(n);
    for (std::size_t d = 0; d < n; ++d) grids[d] = Grid(keys + d, n);
    std::array<float, kMaxHeadDim> error{};  // in the order of rounding, from the end
    for (std::size_t j = 0; j < kernels::kGroup; ++j) {
      float* key = keys + j * n;
      for (std::size_t i = n; i-- > 0;) {
        float& x = key[order_[i]];
        const float* row = upper_.rows == 0 ? nullptr : upper_.row(i);
        const float shift =
            row == nullptr ? 0.0f : kernels::dot(row + i + 1, error.data() + i + 1, n - i - 1) / row[i];
        const float rounded = grids[order_[i]].nearest(x + shift, j);
        error[i] = x - rounded;
        x = rounded;
      }
    }
  }

 private:
  // What a channel of a group can be: 16 numbers from the least of its 32 to the largest.
  struct Grid {
    float scale = 0.0f, minimum = 0.0f;
    std::size_t least = 0, largest = 0;  // entries that keep these ends

    Grid() = default;
    Grid(const float* channel, std::size_t stride) {
      for (std::size_t j = 1; j < kernels::kGroup; ++j) {
        if (channel[j * stride] < channel[least * stride]) least = j;
        if (channel[j * stride] > channel[largest * stride]) largest = j;
      }
      minimum = to_f32(from_f32<f16>(channel[least * stride]));
      scale = to_f32(from_f32<f16>((channel[largest * stride] - minimum) / 15.0f));
    }
    float nearest(float x, std::size_t entry) const noexcept {
      if (!(scale > 0.0f) || entry == least) return minimum;
      if (entry == largest) return minimum + 15.0f * scale;
      return minimum + scale * std::clamp(std::nearbyint((x - minimum) / scale), 0.0f, 15.0f);
    }
  };

  std::vector<std::size_t> order_;  // channels, the weightiest last
  RowMatrix upper_{0, 0};           // L', or empty
};

// How reference queries weigh the channels of kv head h: Q~'Q~ / rows.
template <class H>
RowMatrix query_moments(const ReferenceQueries<H>& references, std::size_t h) {
  const std::size_t dim = references.geometry().head_dim;
  RowMatrix by_channel(dim, references.rows());
  std::vector<float> q(kernels::round_up(dim, kernels::kTile));
  for (std::size_t r = 0; r < references.rows(); ++r) {
    references.read(h, r, q.data());
    for (std::size_t d = 0; d < dim; ++d) by_channel.row(d)[r] = q[d];
  }
  RowMatrix moments = detail::products(by_channel, by_channel);
  for (float& x : moments.x) x /= static_cast<float>(references.rows());
  return moments;
}

}  // namespace zeromerge
