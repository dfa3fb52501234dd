// How far a run's predictions are from the reference's, position by position on the same text:
//   KL(p || q) = sum_j p_j (log p_j - log q_j),  p = softmax(reference), q = softmax(run)
//   top-1 agreement: both put the same token first
//   NLL difference:  -log q_t + log p_t for the token t that follows
// All sums are in double: the differences sought are near 1e-6, below what float sums over a vocabulary
// resolve.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <span>

namespace generate {

// The likeliest token; of equals the lowest id, so that runs can be repeated.
inline std::int32_t argmax(std::span<const float> logits) {
  return static_cast<std::int32_t>(
      std::distance(logits.begin(), std::max_element(logits.begin(), logits.end())));
}

// log sum_j exp(x_j). The maximum is taken out first, for exp(x) of a raw logit may overflow.
inline double log_sum_exp(std::span<const float> logits) {
  const double top = logits[static_cast<std::size_t>(argmax(logits))];
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - top);
  return top + std::log(sum);
}

inline double kl_divergence(std::span<const float> reference, std::span<const float> run) {
  const double reference_norm = log_sum_exp(reference);
  const double run_norm = log_sum_exp(run);
  double sum = 0;
  for (std::size_t j = 0; j < reference.size(); ++j) {
    const double log_p = reference[j] - reference_norm;
    const double p = std::exp(log_p);
    if (p > 0)
      sum += p * (log_p - (run[j] - run_norm));  // 0 log 0 = 0, also where the model forbids a token by -inf
  }
  return sum;
}

// Negative log-likelihood of `token`.
inline double nll(std::span<const float> logits, std::int32_t token) {
  return log_sum_exp(logits) - logits[static_cast<std::size_t>(token)];
}

// Running means over positions.
class Agreement {
 public:
  void add(std::span<const float> reference, std::span<const float> run, std::int32_t next_token) {
    kl_sum_ += kl_divergence(reference, run);
    nll_delta_sum_ += nll(run, next_token) - nll(reference, next_token);
    same_top_ += argmax(reference) == argmax(run) ? 1u : 0u;
    ++positions_;
  }

  std::size_t positions() const { return positions_; }
  double kl_mean() const { return kl_sum_ / count(); }
  double top1_agreement() const { return static_cast<double>(same_top_) / count(); }
  double nll_delta() const { return nll_delta_sum_ / count(); }

 private:
  double count() const { return static_cast<double>(std::max<std::size_t>(positions_, 1)); }

  double kl_sum_ = 0;
  double nll_delta_sum_ = 0;
  std::size_t same_top_ = 0;
  std::size_t positions_ = 0;
};

}  // namespace generate
