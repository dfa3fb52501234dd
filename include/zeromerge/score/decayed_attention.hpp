// Importance by decayed attention (ZeroMerge, "multi-dimensional token importance"), summed over the group's
// query heads:
//   s_j <- decay * s_j + a_j            once per query row; decay = 1 is H2O's accumulated attention
//   importance = s_j                    or, age-normalised, s_j / c_j with c_j = sum of decay^k over the
//                                       queries that could see j (decay = 1: the mean attention of these)
// Of a prompt only the rows matter whose weight decay^(rows after) is above a bound: with decay 0.98 the last
// 456 carry all but 1e-4 of the sum. `tail_bound` = 0 counts every row (exact).
#pragma once

#include <cmath>
#include <cstddef>

#include "zeromerge/core/errors.hpp"

namespace zeromerge {

class DecayedAttention {
 public:
  struct Params {
    float decay = 0.98f;
    float tail_bound = 1e-4f;  // the share of the decayed sum that may be left out; 0: exact
    bool age_normalised = false;
    bool sum_on_merge = false;  // the score of a merged entry: the larger one, or the sum
  };
  static constexpr bool needs_probabilities = true;

  DecayedAttention() = default;
  explicit DecayedAttention(Params params)
      : params_(params), log_decay_(std::log(static_cast<double>(params.decay))) {
    if (!(params.decay > 0.0f) || !(params.decay <= 1.0f))
      fail("score: decay must be in (0, 1], got ", params.decay);
    if (!(params.tail_bound >= 0.0f) || !(params.tail_bound < 1.0f))
      fail("score: the tail bound must be in [0, 1), got ", params.tail_bound);
  }

  float decay() const noexcept { return params_.decay; }

  // How many of the last rows of a prompt count; 0: all of them, as they come.
  std::size_t tail_rows() const noexcept {
    if (params_.tail_bound == 0.0f || params_.decay == 1.0f) return 0;
    const double rows =
        std::ceil(std::log(params_.tail_bound) / std::log(static_cast<double>(params_.decay)));
    return rows > kMostTailRows ? 0 : static_cast<std::size_t>(rows < 1 ? 1 : rows);
  }

  // The weight of a query row with `later` rows after it.
  double weight(std::size_t later) const noexcept {
    return params_.decay == 1.0f ? 1.0
                                 : std::pow(static_cast<double>(params_.decay), static_cast<double>(later));
  }

  // Whether the score as it is says who is worth more.
  bool is_importance() const noexcept { return !params_.age_normalised; }

  // What an entry is worth whose score is `score` and that `queries` queries could see (at least 1).
  float importance(float score, std::size_t queries) const noexcept {
    if (!params_.age_normalised) return score;
    const double n = static_cast<double>(queries);
    if (params_.decay == 1.0f) return static_cast<float>(score / n);
    const double reach = n * log_decay_;  // below -20 the sum has reached its limit to within 2e-9
    const double seen =
        (reach < -20.0 ? 1.0 : 1.0 - std::exp(reach)) / (1.0 - static_cast<double>(params_.decay));
    return static_cast<float>(score / seen);
  }

  // Entries with a higher score are worth more than `importance`, whenever they came of `tokens` tokens.
  float highest_score(float importance, std::size_t tokens) const noexcept {
    const double decay = static_cast<double>(params_.decay);
    const double seen = params_.decay == 1.0f ? static_cast<double>(tokens) : 1.0 / (1.0 - decay);
    return static_cast<float>(static_cast<double>(importance) * seen * 1.000001);  // above any rounding
  }

  float merged(float a, float b) const noexcept { return params_.sum_on_merge ? a + b : (a > b ? a : b); }

 private:
  static constexpr double kMostTailRows =
      4096;  // beyond that keeping queries costs more than counting every row
  Params params_;
  double log_decay_ = std::log(static_cast<double>(Params{}.decay));
};

// No importance at all: for caches that keep everything.
struct NoScore {
  static constexpr bool needs_probabilities = false;
  float decay() const noexcept { return 1.0f; }
  std::size_t tail_rows() const noexcept { return 0; }
  double weight(std::size_t) const noexcept { return 1.0; }
  bool is_importance() const noexcept { return false; }
  float importance(float, std::size_t) const noexcept { return 0.0f; }
  float merged(float a, float) const noexcept { return a; }
};

}  // namespace zeromerge
