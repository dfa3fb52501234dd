// Published scores of whole prompts as their papers write them, entry by entry, in double, from the tokens of
// one layer. Nothing of the library's scores is used.
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstddef>
#include <vector>

#include "support/sequence.hpp"

namespace zeromerge::test {

using Reals = std::vector<double>;

// One layer's prompt: the first `n` of the tokens. RoPE turns channels i and i + dim / 2 together.
class PlainPrompt {
 public:
  PlainPrompt(const Tokens& tokens, std::size_t n, double base = 10000.0) : t_(tokens), n_(n), base_(base) {}

  std::size_t size() const { return n_; }
  std::size_t heads() const { return t_.g.kv_heads; }

  // The softmax of query i over the entries up to its own.
  Reals attention(std::size_t i, std::size_t query_head) const {
    Reals e = exponentials(row(t_.query(i, query_head)), query_head / t_.g.group(), i + 1);
    const double sum = total(e);
    for (double& x : e) x /= sum;
    return e;
  }

  // Decayed sums of attention over the group, one query after another, per query that could see the entry
  // and with its weight: ZeroMerge's running score, bias-corrected.
  Reals running(std::size_t h, double decay) const {
    Reals s = sums(h, decay);
    for (std::size_t j = 0; j < n_; ++j) s[j] /= weight_of(n_ - j, decay);
    return s;
  }
  Reals sums(std::size_t h, double decay) const {
    Reals s(n_, 0.0);
    for (std::size_t i = 0; i < n_; ++i) {
      for (double& x : s) x *= decay;
      for_group(h, [&](std::size_t g) { add(s, attention(i, g)); });
    }
    return s;
  }
  // sum of decay^k over the queries that could see an entry
  static double weight_of(std::size_t queries, double decay) {
    double c = 0.0;
    for (std::size_t i = 0; i < queries; ++i) c = c * decay + 1.0;
    return c;
  }

  // SnapKV: the window's mean attention before it, average-pooled.
  Reals snapkv(std::size_t h, std::size_t window, std::size_t kernel) const {
    Reals mean(n_ - window, 0.0);
    for (std::size_t i = n_ - window; i < n_; ++i)
      for_group(h, [&](std::size_t g) {
        const Reals a = attention(i, g);
        for (std::size_t j = 0; j < mean.size(); ++j)
          mean[j] += a[j] / static_cast<double>(window * t_.g.group());
      });
    return pooled(mean, kernel);
  }

  // DefensiveKV; locked entries are lifted above all others, in the order of their mean attention.
  Reals defensive(std::size_t h, std::size_t window, std::size_t kernel, double lock) const {
    const std::size_t before = n_ - window;
    Reals worst(before, 0.0), mean(n_, 0.0);
    for (std::size_t i = before; i < n_; ++i)
      for_group(h, [&](std::size_t g) {
        const Reals a = attention(i, g);
        const Reals row(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(before));
        const Reals smooth = pooled(row, kernel);
        for (std::size_t j = 0; j < before; ++j)
          worst[j] = std::max(worst[j], smooth[j] * total(row) / total(smooth));
        for (std::size_t j = 0; j < a.size(); ++j)
          mean[j] += a[j] / static_cast<double>(window * t_.g.group());
      });
    const double average = total(worst) / static_cast<double>(before);
    for (std::size_t j = 0; j < before; ++j) {
      double norms = 0.0;
      for (std::size_t other = 0; other < heads(); ++other) norms += norm(t_.value(j, other));
      worst[j] = std::max(worst[j], average) * norm(t_.value(j, h)) / norms;
    }
    double share = total(Reals(mean.begin() + static_cast<std::ptrdiff_t>(before), mean.end()));
    for (const std::size_t j : by_falling(mean, before)) {
      if (share >= lock * total(mean)) break;
      share += mean[j];
      worst[j] = 1e3 + 1e6 * mean[j];
    }
    return worst;
  }

  // KeyDiff over some entries.
  Reals keydiff(std::size_t h, const std::vector<std::size_t>& positions) const {
    Reals anchor(dim(), 0.0), scores;
    for (const std::size_t j : positions)
      for (std::size_t d = 0; d < dim(); ++d) anchor[d] += key(j, h)[d] / length(key(j, h));
    for (const std::size_t j : positions)
      scores.push_back(-dot(key(j, h), anchor) / length(key(j, h)) / length(anchor));
    return scores;
  }

  // Expected Attention: the moments of queries before RoPE, turned by the mean of the next `reach` rotations.
  Reals expected(std::size_t h, std::size_t reach, double epsilon, std::size_t sinks) const {
    Reals score(n_, 0.0);
    const auto rotation = mean_rotation(reach);
    for_group(h, [&](std::size_t g) {
      const auto [mu, sigma] = moments(g, sinks);
      Reals z(n_);
      const Reals m = turned(mu, [&](std::size_t i) { return rotation[i]; });
      for (std::size_t j = sinks; j < n_; ++j) {
        const Reals back = turned(key(j, h), [&](std::size_t i) { return std::conj(rotation[i]); });  // R' k
        double spread = 0.0;
        for (std::size_t a = 0; a < dim(); ++a)
          for (std::size_t b = 0; b < dim(); ++b) spread += back[a] * sigma[a * dim() + b] * back[b];
        z[j] = dot(key(j, h), m) + spread / 2.0;
      }
      const double top = *std::max_element(z.begin() + static_cast<std::ptrdiff_t>(sinks), z.end());
      double sum = 0.0;
      for (std::size_t j = sinks; j < n_; ++j) sum += std::exp(z[j] - top);
      for (std::size_t j = sinks; j < n_; ++j)
        score[j] += std::exp(z[j] - top) / sum / static_cast<double>(t_.g.group());
    });
    for (std::size_t j = 0; j < n_; ++j)
      score[j] = j < sinks ? 1e6 : (score[j] + epsilon) * norm(t_.value(j, h));
    return score;
  }

  // Replay: each query once more n positions on, over all entries and what it saw the first time.
  Reals replay(std::size_t h) const {
    Reals best(n_, 0.0);
    for (std::size_t i = 0; i < n_; ++i)
      for_group(h, [&](std::size_t g) {
        const Reals q = row(t_.query(i, g));
        Reals again = exponentials(rotated(q, static_cast<double>(n_)), h, n_);
        const Reals local = exponentials(q, h, i + 1);
        const double sum = total(again) + total(local) - local[0];
        for (std::size_t j = 0; j < n_; ++j) best[j] = std::max(best[j], again[j] / sum);
      });
    return best;
  }

  // KVzip: the most attention that each entry gets from tokens [n, n + more), which see all before them.
  Reals second_reading(std::size_t h, std::size_t more) const {
    Reals best(n_, 0.0);
    for (std::size_t i = n_; i < n_ + more; ++i)
      for_group(h, [&](std::size_t g) {
        const Reals a = attention(i, g);
        for (std::size_t j = 0; j < n_; ++j) best[j] = std::max(best[j], a[j]);
      });
    return best;
  }

 private:
  std::size_t dim() const { return t_.g.head_dim; }
  Reals row(const float* x) const { return {x, x + dim()}; }
  Reals key(std::size_t j, std::size_t h) const { return row(t_.key(j, h)); }
  double norm(const float* x) const { return length(row(x)); }

  static double dot(const Reals& a, const Reals& b) {
    double sum = 0.0;
    for (std::size_t d = 0; d < a.size(); ++d) sum += a[d] * b[d];
    return sum;
  }
  static double length(const Reals& a) { return std::sqrt(dot(a, a)); }
  static double total(const Reals& a) {
    double sum = 0.0;
    for (const double x : a) sum += x;
    return sum;
  }
  static void add(Reals& to, const Reals& x) {
    for (std::size_t j = 0; j < x.size(); ++j) to[j] += x[j];
  }
  static std::vector<std::size_t> by_falling(const Reals& x, std::size_t n) {
    std::vector<std::size_t> order(n);
    for (std::size_t j = 0; j < n; ++j) order[j] = j;
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return x[a] > x[b]; });
    return order;
  }
  static Reals pooled(const Reals& x, std::size_t kernel) {
    Reals y(x.size(), 0.0);
    const auto half = static_cast<std::ptrdiff_t>(kernel / 2);
    for (std::ptrdiff_t j = 0; j < std::ssize(x); ++j)
      for (std::ptrdiff_t i = j - half; i <= j + half; ++i)
        if (i >= 0 && i < std::ssize(x))
          y[static_cast<std::size_t>(j)] += x[static_cast<std::size_t>(i)] / static_cast<double>(kernel);
    return y;
  }

  template <class F>
  void for_group(std::size_t h, const F& f) const {
    for (std::size_t m = 0; m < t_.g.group(); ++m) f(h * t_.g.group() + m);
  }
  Reals exponentials(const Reals& q, std::size_t h, std::size_t entries) const {
    Reals e(entries);
    for (std::size_t j = 0; j < entries; ++j)
      e[j] = std::exp(dot(q, key(j, h)) * static_cast<double>(t_.g.attention_scale()));
    return e;
  }

  double frequency(std::size_t pair) const {
    return std::pow(base_, -2.0 * static_cast<double>(pair) / static_cast<double>(dim()));
  }
  // Pairs as complex numbers times turn(pair).
  template <class Turn>
  Reals turned(const Reals& x, const Turn& turn) const {
    Reals y(x);
    const std::size_t half = dim() / 2;
    for (std::size_t i = 0; i < half; ++i) {
      const std::complex<double> z = std::complex<double>(x[i], x[i + half]) * turn(i);
      y[i] = z.real();
      y[i + half] = z.imag();
    }
    return y;
  }
  Reals rotated(const Reals& x, double positions) const {
    return turned(x, [&](std::size_t i) { return std::polar(1.0, positions * frequency(i)); });
  }
  // The mean rotation to positions n .. n + reach - 1, [dim / 2].
  std::vector<std::complex<double>> mean_rotation(std::size_t reach) const {
    std::vector<std::complex<double>> mean(dim() / 2);
    for (std::size_t i = 0; i < mean.size(); ++i)
      for (std::size_t p = n_; p < n_ + reach; ++p)
        mean[i] += std::polar(1.0, static_cast<double>(p) * frequency(i)) / static_cast<double>(reach);
    return mean;
  }

  struct Moments {
    Reals mean;        // [dim]
    Reals covariance;  // [dim][dim]
  };
  // Of queries before RoPE times the attention scale, without the first tokens'.
  Moments moments(std::size_t query_head, std::size_t sinks) const {
    Moments m{Reals(dim(), 0.0), Reals(dim() * dim(), 0.0)};
    std::vector<Reals> q;
    for (std::size_t i = sinks; i < n_; ++i) {
      q.push_back(rotated(row(t_.query(i, query_head)), -static_cast<double>(i)));
      for (double& x : q.back()) x *= static_cast<double>(t_.g.attention_scale());
      add(m.mean, q.back());
    }
    const auto count = static_cast<double>(q.size());
    for (double& x : m.mean) x /= count;
    for (const Reals& x : q)
      for (std::size_t a = 0; a < dim(); ++a)
        for (std::size_t b = 0; b < dim(); ++b)
          m.covariance[a * dim() + b] += (x[a] - m.mean[a]) * (x[b] - m.mean[b]) / count;
    return m;
  }

  const Tokens& t_;
  std::size_t n_;
  double base_;
};

}  // namespace zeromerge::test
