// Expected Attention (arXiv 2510.00636): the attention that queries of the next positions will pay, if they
// are distributed like the prompt's own before RoPE.
//   mu, Sigma = mean and covariance per query head of the prompt's queries before RoPE, without the first
//               `sinks` tokens'
//   R         = the mean of the rotations to the next `reach` positions
//   z_j       = k_j . R mu + k_j' R Sigma R' k_j / 2          (queries times the attention scale)
//   a         = softmax over the entries of z, mean over the group's query heads
//   importance_j = (a_j + epsilon) * |v_j|
// The first `sinks` tokens are always kept and take no part in the softmax. Turning back to position 0 and on
// to the mean of the next positions is one linear step, so each query takes it first and the moments are
// taken behind it; a length that the model's RoPE gives rotated rows is in the stored queries already. The
// formula knows no soft-cap and no sink logit: neither is applied. The bias of merged entries is added to z.
// Without queries every entry counts as attended alike. Cost: n head_dim^2 per query head, twice.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

#include "zeromerge/core/rope.hpp"
#include "zeromerge/kernels/kernels.hpp"
#include "zeromerge/score/always_kept.hpp"
#include "zeromerge/score/prompt_score.hpp"
#include "zeromerge/score/value_norm.hpp"

namespace zeromerge {

struct ExpectedAttention {
  std::size_t reach = 512;  // the next positions that are averaged over
  float epsilon = 0.02f;
  std::size_t sinks = 4;  // first tokens, left out and always kept

  bool needs_queries() const noexcept { return true; }
  bool needs_rope() const noexcept { return true; }

  template <class H>
  Ratings rate(const PromptView<H>& view) const {
    const std::size_t start = view.tokens - view.queries.tokens();  // the first query's position
    const std::size_t skipped = std::min(sinks - std::min(sinks, start), view.queries.tokens());
    std::vector<RopeTurn> turns(view.queries.tokens() - skipped);
    view.executor(turns.size(), [&](std::size_t t) {
      turns[t] = mean_turn(*view.rope, static_cast<double>(view.tokens - start - skipped - t));
    });
    return rate_heads(view, [&](std::size_t h, std::span<float> importance) {
      const H& head = view.heads[h];
      const std::vector<float> keys = rows_of_keys(head);
      for (std::size_t g = 0; g < view.geometry.group(); ++g) {
        const Moments moments = moments_of(view, h * view.geometry.group() + g, skipped, turns);
        add_softmax(head, logits(head, keys, moments), 1.0f / static_cast<float>(view.geometry.group()),
                    importance);
      }
      const std::vector<float> norm = value_norms(head);
      for (std::size_t j = 0; j < importance.size(); ++j)
        importance[j] = head.position()[j] < sinks ? kAlwaysKept : (importance[j] + epsilon) * norm[j];
    });
  }

 private:
  // Of a query head's turned queries. Channels are padded with zeros to 16.
  struct Moments {
    std::vector<float> mean;        // [row_size]
    std::vector<float> covariance;  // panels of 16 columns: [row_size / 16][row_size][16]
  };

  // The mean of the turns by `positions` .. positions + reach - 1: a geometric sum of complex numbers.
  RopeTurn mean_turn(const Rope& rope, double positions) const {
    const std::span<const double> frequency = rope.frequencies();
    const double n = static_cast<double>(std::max<std::size_t>(reach, 1));
    RopeTurn turn{std::vector<float>(frequency.size()), std::vector<float>(frequency.size())};
    for (std::size_t i = 0; i < frequency.size(); ++i) {
      const double half = frequency[i] / 2.0;
      const double share = std::sin(half) != 0.0 ? std::sin(n * half) / (n * std::sin(half)) : 1.0;
      const double angle = frequency[i] * (positions + (n - 1.0) / 2.0);
      turn.cosine[i] = static_cast<float>(share * std::cos(angle));
      turn.sine[i] = static_cast<float>(share * std::sin(angle));
    }
    return turn;
  }

  template <class H>
  static Moments moments_of(const PromptView<H>& view, std::size_t query_head, std::size_t skipped,
                            const std::vector<RopeTurn>& turns) {
    const std::size_t dim = view.geometry.head_dim;
    const std::size_t n = turns.size();
    const std::size_t size = kernels::round_up(dim, kernels::kTile);
    Moments m{std::vector<float>(size), std::vector<float>(size * size)};
    if (n == 0) return m;
    std::vector<float> channel(dim * n);  // [head_dim][n], less its mean
    float row[kMaxHeadDim];
    for (std::size_t t = 0; t < n; ++t) {
      view.queries.read(skipped + t, query_head, 1.0f, row);
      view.rope->apply(turns[t], row);
      for (std::size_t d = 0; d < dim; ++d) channel[d * n + t] = row[d];
    }
    for (std::size_t d = 0; d < dim; ++d) m.mean[d] = centre({channel.data() + d * n, n});
    for (std::size_t a = 0; a < dim; ++a)
      for (std::size_t b = 0; b <= a; ++b) {
        const float x =
            kernels::dot(channel.data() + a * n, channel.data() + b * n, n) / static_cast<float>(n);
        m.covariance[a / 16 * 16 * size + b * 16 + a % 16] = x;
        m.covariance[b / 16 * 16 * size + a * 16 + b % 16] = x;
      }
    return m;
  }

  // Takes the mean away and returns it.
  static float centre(std::span<float> x) noexcept {
    double sum = 0.0;
    for (const float y : x) sum += static_cast<double>(y);
    const auto mean = static_cast<float>(sum / static_cast<double>(x.size()));
    for (float& y : x) y -= mean;
    return mean;
  }

  // [entries][row_size], padded with zeros.
  template <class H>
  static std::vector<float> rows_of_keys(const H& head) {
    std::vector<float> rows(head.size() * head.row_size());
    for (std::size_t j = 0; j < head.size(); ++j) head.read_key(j, rows.data() + j * head.row_size());
    return rows;
  }

  // z of every entry.
  template <class H>
  static std::vector<float> logits(const H& head, const std::vector<float>& keys, const Moments& moments) {
    const std::size_t size = head.row_size();
    std::vector<float> z(head.size());
    std::vector<float> spread(kernels::kKeyBlock * size);  // Sigma k of a block of entries
    for (std::size_t first = 0; first < z.size(); first += kernels::kKeyBlock) {
      const std::size_t count = std::min(kernels::kKeyBlock, z.size() - first);
      kernels::product(keys.data() + first * size, size, moments.covariance.data(), size * 16, spread.data(),
                       size, count, size, size, false);
      for (std::size_t i = 0; i < count; ++i) {
        const float* k = keys.data() + (first + i) * size;
        z[first + i] = kernels::dot(k, moments.mean.data(), size) +
                       kernels::dot(k, spread.data() + i * size, size) / 2.0f +
                       (head.fields().mass ? head.bias()[first + i] : 0.0f);
      }
    }
    return z;
  }

  // importance_j += share * softmax(z)_j over the entries that are no sinks.
  template <class H>
  void add_softmax(const H& head, std::vector<float> z, float share, std::span<float> importance) const {
    float top = -kAlwaysKept;
    for (std::size_t j = 0; j < z.size(); ++j)
      if (head.position()[j] >= sinks) top = std::max(top, z[j]);
    double sum = 0.0;
    for (std::size_t j = 0; j < z.size(); ++j) {
      z[j] = head.position()[j] >= sinks ? std::exp(z[j] - top) : 0.0f;
      sum += static_cast<double>(z[j]);
    }
    if (!(sum > 0.0)) return;
    for (std::size_t j = 0; j < z.size(); ++j)
      importance[j] += static_cast<float>(static_cast<double>(share * z[j]) / sum);
  }
};

static_assert(PromptScore<ExpectedAttention>);

}  // namespace zeromerge
