// What happens to entries that leave: dropped, or folded into residual entries (ZeroMerge, "residual
// merging"). A merge sees a head through its slots; it never decides who leaves.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <span>
#include <variant>
#include <vector>

#include "zeromerge/budget/amount.hpp"
#include "zeromerge/core/geometry.hpp"
#include "zeromerge/merge/drop.hpp"
#include "zeromerge/merge/key_clusters.hpp"
#include "zeromerge/merge/nearest_value.hpp"
#include "zeromerge/storage/head.hpp"

namespace zeromerge {

// Neighbours in the order of arrival; the first (slots mod count) groups are one longer. None is empty.
inline std::vector<std::vector<std::size_t>> contiguous_groups(std::span<const std::size_t> slots,
                                                               std::size_t count) {
  std::vector<std::vector<std::size_t>> groups;
  for (std::size_t g = 0, at = 0; g < std::min(count, slots.size()); ++g) {
    const std::size_t length = slots.size() / count + (g < slots.size() % count ? 1 : 0);
    const auto group = slots.subspan(at, length);
    groups.emplace_back(group.begin(), group.end());
    at += length;
  }
  return groups;
}

// Means weighted by mass: k_j, v_j <- (w_i k_i + w_j k_j) / (w_i + w_j), w_j <- w_i + w_j. A merged entry's
// logit gets alpha * ln(w) (compensated attention). Keys are merged after RoPE.
class ResidualMerge {
 public:
  enum class Metric { dot, l2 };
  struct Params {
    Amount residual =
        count(1);        // entries per head, or a share of the capacity without the recent ones; at least 1
    float alpha = 0.6f;  // the paper's runs; the reference code's default is 1
    Metric metric = Metric::dot;  // which residual entry takes a leaver: the largest dot product or the least
                                  // distance of keys
    bool clusters = false;        // at the end of a prompt: groups of near keys, else of neighbours in time
  };

  ResidualMerge() = default;
  explicit ResidualMerge(Params params) : params_(params) {
    if (!(params.alpha >= 0.0f) || !(params.alpha <= 100.0f))
      fail("merge: alpha must be in [0, 100], got ", params.alpha);
  }

  bool keeps_mass() const noexcept { return true; }
  const Params& params() const noexcept { return params_; }

  // Residual entries of a head that has `competed` entries beside the recent ones.
  std::size_t residuals(std::size_t competed) const noexcept {
    return std::max<std::size_t>(1, params_.residual.of(competed));
  }

  // Who is merged with whom at the end of a prompt: at most `count` groups of these slots.
  template <class H>
  std::vector<std::vector<std::size_t>> groups(const H& head, std::span<const std::size_t> leavers,
                                               std::size_t count) const {
    return params_.clusters ? key_clusters(head, leavers, count) : contiguous_groups(leavers, count);
  }

  // Folds slot `from` into the best matching of the `count` residual entries that start at slot `first`.
  template <class H, class S>
  void fold(H& head, std::size_t from, std::size_t first, std::size_t count, const S& score) const noexcept {
    const std::size_t to = count == 1 ? first : match(head, from, first, count);
    Mean mean(head.head_dim());
    mean.add(head, to);
    mean.add(head, from);
    const float s = score.merged(head.score()[from], head.score()[to]);
    mean.write(head, to, *this);
    head.score()[to] = s;
  }

  // Writes the mean of these slots of `source` to slot `to` of `target`; what stands there already (a
  // residual entry, its slot below target.size()) takes part. The position is the oldest one.
  template <class H, class S>
  void fold_group(const H& source, std::span<const std::size_t> slots, H& target, std::size_t to,
                  const S& score) const noexcept {
    Mean mean(source.head_dim());
    bool any = to < target.size();
    float s = 0.0f;
    std::uint32_t position = 0xffffffffu;
    if (any) {
      mean.add(target, to);
      s = target.score()[to];
      position = target.position()[to];
    }
    for (const std::size_t slot : slots) {
      mean.add(source, slot);
      s = any ? score.merged(s, source.score()[slot]) : source.score()[slot];
      any = true;
      position = std::min(position, source.position()[slot]);
    }
    mean.write(target, to, *this);
    target.score()[to] = s;
    target.position()[to] = position;
  }

 private:
  struct Mean {
    explicit Mean(std::size_t dim) noexcept : head_dim(dim) {
      std::fill_n(key.begin(), dim, 0.0f);
      std::fill_n(value.begin(), dim, 0.0f);
    }
    template <class H>
    void add(const H& head, std::size_t slot) noexcept {
      const float w = head.mass()[slot];
      add_row(w, key, [&](float* to) { head.read_key(slot, to); });
      add_row(w, value, [&](float* to) { head.read_value(slot, to); });
      mass += w;
    }
    template <class H>
    void write(H& head, std::size_t slot, const ResidualMerge& merge) noexcept {
      for (std::size_t d = 0; d < head_dim; ++d) {
        key[d] /= mass;
        value[d] /= mass;
      }
      head.write_key(slot, key.data());
      head.write_value(slot, value.data());
      head.mass()[slot] = mass;
      head.bias()[slot] = merge.params_.alpha * std::log(mass);
    }
    template <class Read>
    void add_row(float w, std::array<float, kMaxHeadDim>& sum, const Read& read) noexcept {
      read(row.data());
      for (std::size_t d = 0; d < head_dim; ++d) sum[d] += w * row[d];
    }
    std::size_t head_dim;
    float mass = 0.0f;
    std::array<float, kMaxHeadDim> key;
    std::array<float, kMaxHeadDim> value;
    std::array<float, kMaxHeadDim> row;
  };

  template <class H>
  std::size_t match(const H& head, std::size_t from, std::size_t first, std::size_t count) const noexcept {
    std::array<float, kMaxHeadDim> a;
    std::array<float, kMaxHeadDim> b;
    head.read_key(from, a.data());
    std::size_t best = first;
    float best_value = 0.0f;
    for (std::size_t j = first; j < first + count; ++j) {
      head.read_key(j, b.data());
      const float value = closeness(a.data(), b.data(), head.head_dim());
      if (j != first && !(value > best_value)) continue;
      best = j;
      best_value = value;
    }
    return best;
  }

  float closeness(const float* a, const float* b, std::size_t n) const noexcept {
    if (params_.metric == Metric::dot) return kernels::dot(a, b, n);
    float distance = 0.0f;
    for (std::size_t d = 0; d < n; ++d) distance += (a[d] - b[d]) * (a[d] - b[d]);
    return -distance;
  }

  Params params_;
};

// Any of them, chosen at run time; asked once per evicted entry.
struct AnyMerge {
  std::variant<DropMerge, ResidualMerge, NearestValueMerge> choice;
  bool keeps_mass() const noexcept {
    return std::visit([](const auto& merge) { return merge.keeps_mass(); }, choice);
  }
  std::size_t residuals(std::size_t competed) const noexcept {
    return std::visit([&](const auto& merge) { return merge.residuals(competed); }, choice);
  }
  template <class H>
  std::vector<std::vector<std::size_t>> groups(const H& head, std::span<const std::size_t> leavers,
                                               std::size_t count) const {
    const auto* residual = std::get_if<ResidualMerge>(&choice);
    return residual != nullptr ? residual->groups(head, leavers, count) : contiguous_groups(leavers, count);
  }
  template <class H, class S>
  void fold(H& head, std::size_t from, std::size_t first, std::size_t count, const S& score) const noexcept {
    std::visit([&](const auto& merge) { merge.fold(head, from, first, count, score); }, choice);
  }
  template <class H, class S>
  void fold_group(const H& source, std::span<const std::size_t> slots, H& target, std::size_t to,
                  const S& score) const noexcept {
    std::visit([&](const auto& merge) { merge.fold_group(source, slots, target, to, score); }, choice);
  }
  template <class H>
  void absorb(const H& source, std::span<const std::size_t> leavers, H& target) const {
    if (const auto* merge = std::get_if<NearestValueMerge>(&choice)) merge->absorb(source, leavers, target);
  }
};

}  // namespace zeromerge
