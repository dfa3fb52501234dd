// The textbook: softmax(scale * q.k, capped, plus bias) of one query row, in double.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace zeromerge::test {

struct Attention {
  std::vector<double> out;          // [dim]
  std::vector<double> probability;  // [n]
  double lse = 0.0;
};

// q: [dim]; key(j), value(j): pointers to [dim]; bias(j): a number.
template <class Key, class Value, class Bias>
Attention attention(const float* q, std::size_t dim, std::size_t n, double scale, double softcap,
                    const Key& key, const Value& value, const Bias& bias) {
  std::vector<double> logit(n);
  for (std::size_t j = 0; j < n; ++j) {
    const float* k = key(j);
    double dot = 0.0;
    for (std::size_t d = 0; d < dim; ++d) dot += static_cast<double>(q[d]) * static_cast<double>(k[d]);
    dot *= scale;
    if (softcap > 0.0) dot = softcap * std::tanh(dot / softcap);
    logit[j] = dot + static_cast<double>(bias(j));
  }
  const double top = *std::max_element(logit.begin(), logit.end());
  double sum = 0.0;
  for (const double x : logit) sum += std::exp(x - top);
  Attention a{std::vector<double>(dim), std::vector<double>(n), top + std::log(sum)};
  for (std::size_t j = 0; j < n; ++j) {
    a.probability[j] = std::exp(logit[j] - a.lse);
    const float* v = value(j);
    for (std::size_t d = 0; d < dim; ++d) a.out[d] += a.probability[j] * static_cast<double>(v[d]);
  }
  return a;
}

}  // namespace zeromerge::test
