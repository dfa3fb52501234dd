// Groups of entries whose keys lie near one another: k-means by Euclidean distance, from centres spread
// evenly over the order of arrival, a fixed number of rounds. Ties go to the lower centre.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "zeromerge/kernels/kernels.hpp"

namespace zeromerge {

// At most `count` groups (none for 0), none empty, of these slots of a head, each in rising order.
template <class H>
std::vector<std::vector<std::size_t>> key_clusters(const H& head, std::span<const std::size_t> slots,
                                                   std::size_t count) {
  constexpr int kRounds = 5;
  count = std::min(count, slots.size());
  if (count == 0) return {};
  const std::size_t dim = head.head_dim();
  std::vector<float> keys(slots.size() * dim), centres(count * dim), half(count);
  for (std::size_t i = 0; i < slots.size(); ++i) head.read_key(slots[i], keys.data() + i * dim);
  for (std::size_t c = 0; c < count; ++c)
    std::copy_n(keys.data() + (2 * c + 1) * slots.size() / (2 * count) * dim, dim, centres.data() + c * dim);
  std::vector<std::size_t> nearest(slots.size());
  for (int round = 0; round < kRounds; ++round) {
    for (std::size_t c = 0; c < count; ++c) {
      const float* centre = centres.data() + c * dim;
      half[c] = 0.5f * kernels::dot(centre, centre, dim);
    }
    for (std::size_t i = 0; i < slots.size(); ++i) {
      float best = 0.0f;
      for (std::size_t c = 0; c < count; ++c) {  // |k - c|^2 / 2 less |k|^2 / 2, negated
        const float near = kernels::dot(keys.data() + i * dim, centres.data() + c * dim, dim) - half[c];
        if (c != 0 && !(near > best)) continue;
        best = near;
        nearest[i] = c;
      }
    }
    std::vector<float> sums(count * dim, 0.0f), members(count, 0.0f);
    for (std::size_t i = 0; i < slots.size(); ++i) {
      members[nearest[i]] += 1.0f;
      for (std::size_t d = 0; d < dim; ++d) sums[nearest[i] * dim + d] += keys[i * dim + d];
    }
    for (std::size_t c = 0; c < count; ++c)
      for (std::size_t d = 0; members[c] > 0.0f && d < dim; ++d)
        centres[c * dim + d] = sums[c * dim + d] / members[c];
  }
  std::vector<std::vector<std::size_t>> groups(count);
  for (std::size_t i = 0; i < slots.size(); ++i) groups[nearest[i]].push_back(slots[i]);
  std::erase_if(groups, [](const auto& group) { return group.empty(); });
  return groups;
}

}  // namespace zeromerge
