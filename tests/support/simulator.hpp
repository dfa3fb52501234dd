// The rules of eviction written down once more, slowly: one kv head as lists of entries, everything in
// double. Own mode only; the reference mode is held against the golden vectors.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "support/attention.hpp"
#include "support/sequence.hpp"

namespace zeromerge::test {

struct SimulatorRules {
  std::size_t capacity, sinks, residual, recent;
  double alpha, decay;
  bool drop, l2, sum, mean;  // mean: importance per query that could see the entry
  double share = 0.0;        // of the tokens seen, to which the capacity grows while decoding
};

class SimulatedHead {
 public:
  struct Entry {
    std::vector<double> key, value;
    double mass = 1.0;
    double score = 0.0;
    std::size_t position = 0;
  };

  SimulatedHead(const Tokens& tokens, std::size_t kv_head, const SimulatorRules& rules)
      : t_(tokens), kv_(kv_head), rules_(rules) {}

  // A prompt: rows score one after another, then the head is brought to its capacity. Residual entries that
  // exist already are one entry at most, since slots have no order here.
  void prompt(std::size_t first, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) take(first + i);
    if (size() <= rules_.capacity) return;
    std::vector<Entry> candidates = context_;
    std::vector<Entry> arrived = recent_;
    while (arrived.size() > rules_.recent) {
      candidates.push_back(arrived.front());
      arrived.erase(arrived.begin());
    }
    std::vector<std::size_t> order(candidates.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
      return importance(candidates[a]) > importance(candidates[b]);
    });
    const std::size_t keep = rules_.capacity - rules_.sinks - rules_.residual - rules_.recent;
    note_gap(importance(candidates[order[keep - 1]]), importance(candidates[order[keep]]));
    std::vector<bool> kept(candidates.size(), false);
    for (std::size_t i = 0; i < keep; ++i) kept[order[i]] = true;
    std::vector<Entry> leavers;
    context_.clear();
    for (std::size_t i = 0; i < candidates.size(); ++i)
      (kept[i] ? context_ : leavers).push_back(candidates[i]);
    recent_ = arrived;
    if (rules_.drop) return;
    const std::size_t groups = rules_.residual;
    for (std::size_t g = 0, at = 0; g < groups; ++g) {
      const std::size_t length = leavers.size() / groups + (g < leavers.size() % groups ? 1 : 0);
      for (std::size_t i = 0; i < length; ++i, ++at) {
        if (residual_.size() <= g) {
          residual_.push_back(leavers[at]);
        } else {
          const std::size_t oldest = std::min(residual_[g].position, leavers[at].position);
          fold(leavers[at], residual_[g]);
          residual_[g].position = oldest;
        }
      }
    }
  }

  // One decoded token; its attention is what output() returns afterwards.
  void decode(std::size_t token) {
    rules_.capacity =
        std::max(rules_.capacity, static_cast<std::size_t>(rules_.share * static_cast<double>(token + 1)));
    take(token);
    while (recent_.size() > rules_.recent) {
      context_.push_back(recent_.front());
      recent_.erase(recent_.begin());
    }
    while (!rules_.drop && residual_.size() < rules_.residual &&
           size() + rules_.residual - residual_.size() > rules_.capacity) {
      const std::size_t victim = least();
      residual_.push_back(context_[victim]);
      context_.erase(context_.begin() + static_cast<std::ptrdiff_t>(victim));
    }
    if (size() <= rules_.capacity) return;
    const std::size_t victim = least();
    if (!rules_.drop) fold(context_[victim], residual_[match(context_[victim])]);
    context_.erase(context_.begin() + static_cast<std::ptrdiff_t>(victim));
  }

  // Of the last token's query heads: [group].
  const std::vector<Attention>& outputs() const { return outputs_; }
  std::size_t size() const { return sinks_.size() + residual_.size() + context_.size() + recent_.size(); }
  // The least relative distance that a choice hung on: below 1e-5 f32 may decide otherwise.
  double gap() const { return gap_; }

  std::vector<Entry> by_position() const {
    std::vector<Entry> all = entries();
    std::sort(all.begin(), all.end(), [](const Entry& a, const Entry& b) { return a.position < b.position; });
    return all;
  }

 private:
  std::vector<Entry> entries() const {
    std::vector<Entry> all = sinks_;
    for (const auto* area : {&residual_, &context_, &recent_})
      all.insert(all.end(), area->begin(), area->end());
    return all;
  }

  // Appends the token, attends to everything held, and scores it.
  void take(std::size_t token) {
    const std::size_t dim = t_.g.head_dim;
    Entry fresh;
    fresh.key.assign(t_.key(token, kv_), t_.key(token, kv_) + dim);
    fresh.value.assign(t_.value(token, kv_), t_.value(token, kv_) + dim);
    fresh.position = token;
    seen_ = token + 1;
    (sinks_.size() < rules_.sinks ? sinks_ : recent_).push_back(fresh);
    std::vector<Entry*> all;
    for (auto* area : {&sinks_, &residual_, &context_, &recent_})
      for (Entry& e : *area) all.push_back(&e);
    for (Entry* e : all) e->score *= rules_.decay;
    outputs_.clear();
    for (std::size_t g = 0; g < t_.g.group(); ++g) {
      const float* q = t_.query(token, kv_ * t_.g.group() + g);
      std::vector<std::vector<float>> keys, values;
      for (const Entry* e : all) {
        keys.emplace_back(e->key.begin(), e->key.end());
        values.emplace_back(e->value.begin(), e->value.end());
      }
      outputs_.push_back(attention(
          q, dim, all.size(), static_cast<double>(t_.g.attention_scale()), 0.0,
          [&](std::size_t j) { return keys[j].data(); }, [&](std::size_t j) { return values[j].data(); },
          [&](std::size_t j) { return rules_.alpha * std::log(all[j]->mass); }));
      for (std::size_t j = 0; j < all.size(); ++j) all[j]->score += outputs_.back().probability[j];
    }
  }

  double importance(const Entry& e) const {
    if (!rules_.mean) return e.score;
    double weight = 0.0;
    for (std::size_t i = e.position; i < seen_; ++i) weight = weight * rules_.decay + 1.0;
    return e.score / weight;
  }

  std::size_t least() {
    std::size_t victim = 0;
    for (std::size_t j = 1; j < context_.size(); ++j)
      if (importance(context_[j]) < importance(context_[victim])) victim = j;
    for (std::size_t j = 0; j < context_.size(); ++j)
      if (j != victim) note_gap(importance(context_[j]), importance(context_[victim]));
    return victim;
  }

  std::size_t match(const Entry& leaver) {
    std::vector<double> closeness;
    for (const Entry& r : residual_) {
      double x = 0.0;
      for (std::size_t d = 0; d < r.key.size(); ++d) {
        const double difference = r.key[d] - leaver.key[d];
        x += rules_.l2 ? -difference * difference : r.key[d] * leaver.key[d];
      }
      closeness.push_back(x);
    }
    const auto best = std::max_element(closeness.begin(), closeness.end());
    for (auto i = closeness.begin(); i != closeness.end(); ++i)
      if (i != best) note_gap(*best, *i);
    return static_cast<std::size_t>(best - closeness.begin());
  }

  void fold(const Entry& from, Entry& to) const {
    const double mass = from.mass + to.mass;
    for (std::size_t d = 0; d < to.key.size(); ++d) {
      to.key[d] = (from.mass * from.key[d] + to.mass * to.key[d]) / mass;
      to.value[d] = (from.mass * from.value[d] + to.mass * to.value[d]) / mass;
    }
    to.mass = mass;
    to.score = rules_.sum ? from.score + to.score : std::max(from.score, to.score);
  }

  void note_gap(double a, double b) {
    gap_ = std::min(gap_, std::abs(a - b) / (std::abs(a) + std::abs(b) + 1e-30));
  }

  const Tokens& t_;
  std::size_t kv_;
  SimulatorRules rules_;
  std::vector<Entry> sinks_, residual_, context_, recent_;  // context and recent in order of arrival
  std::vector<Attention> outputs_;
  std::size_t seen_ = 0;
  double gap_ = 1.0;
};

}  // namespace zeromerge::test
