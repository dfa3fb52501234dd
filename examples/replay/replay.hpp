// Runs a trace through a cache and says how far the two depart.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "trace.hpp"
#include "zeromerge/cache/any_cache.hpp"

namespace replay {

// The largest absolute differences over the prompt and all steps; NaN once one was NaN. Entries are compared
// slot by slot: where the cache holds another number of them than the trace, there is nothing to say about
// them.
struct Differences {
  std::size_t steps = 0;
  double out = 0.0;
  std::optional<double> keys = 0.0;
  std::optional<double> values = 0.0;
  std::optional<double> mass = 0.0;
  std::optional<double> score = 0.0;

  bool within(double bound) const noexcept {
    const auto small = [&](std::optional<double> x) { return x.has_value() && *x <= bound; };
    return small(out) && small(keys) && small(values) && small(mass) && small(score);
  }
};

namespace detail {

inline void widen(double& worst, std::span<const float> got, std::span<const float> expected) noexcept {
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double x = std::abs(static_cast<double>(got[i]) - static_cast<double>(expected[i]));
    if (std::isnan(x) || x > worst) worst = x;  // once NaN, nothing exceeds it
  }
}

inline void widen(std::optional<double>& worst, std::span<const float> got,
                  std::span<const float> expected) noexcept {
  if (worst.has_value()) widen(*worst, got, expected);
}

inline bool same_slots(const zeromerge::AnyLayer& layer, std::size_t kv_heads, std::size_t slots) {
  for (std::size_t h = 0; h < kv_heads; ++h)
    if (layer.entries(h) != slots) return false;
  return true;
}

// [kv_heads][slots]; every head has this many.
inline std::vector<float> scores(const zeromerge::AnyLayer& layer, std::size_t kv_heads, std::size_t slots) {
  std::vector<float> all;
  for (std::size_t h = 0; h < kv_heads; ++h)
    for (std::size_t slot = 0; slot < slots; ++slot) all.push_back(layer.score(h, slot));
  return all;
}

// A policy that counts only a prompt's last rows scores when the prompt ends, one in bounded mode has let
// entries go by now: neither has the exact scores of the whole prompt to show.
inline void compare_prefill_scores(const Trace& trace, const zeromerge::AnyLayer& layer,
                                   Differences& differences) {
  const std::size_t heads = trace.geometry.kv_heads;
  if (!same_slots(layer, heads, trace.prompt.count)) return;
  const auto score = scores(layer, heads, trace.prompt.count);
  const bool scored = std::any_of(score.begin(), score.end(), [](float s) { return s != 0.0f; });
  if (scored) widen(differences.score, score, trace.prefill_scores);
}

inline void compare(const Trace& trace, const zeromerge::AnyLayer& layer, const std::vector<float>& out,
                    const Snapshot& expected, Differences& differences) {
  widen(differences.out, out, expected.out);
  const std::size_t heads = trace.geometry.kv_heads;
  const std::size_t dim = trace.geometry.head_dim;
  if (!same_slots(layer, heads, expected.slots)) {
    differences.keys = differences.values = differences.mass = differences.score = std::nullopt;
    return;
  }
  std::vector<float> row(dim);
  for (std::size_t h = 0; h < heads; ++h)
    for (std::size_t slot = 0; slot < expected.slots; ++slot) {
      const std::size_t at = h * expected.slots + slot;
      const float mass = layer.mass(h, slot);
      widen(differences.mass, {&mass, 1}, {&expected.mass[at], 1});
      layer.read_key(h, slot, row.data());
      widen(differences.keys, row, {&expected.keys[at * dim], dim});
      layer.read_value(h, slot, row.data());
      widen(differences.values, row, {&expected.values[at * dim], dim});
    }
  widen(differences.score, scores(layer, heads, expected.slots), expected.score);
}

}  // namespace detail

// `cache` is empty and has the trace's geometry. Throws zeromerge::Error if it refuses what the trace feeds
// it.
inline Differences replay(const Trace& trace, zeromerge::AnyCache& cache) {
  const auto [q_heads, kv_heads, dim, scale, softcap] = trace.geometry.shape(0);
  zeromerge::AnyLayer& layer = cache.layer(0);
  Differences differences{.steps = trace.decoded.count};

  const Tokens& prompt = trace.prompt;
  std::vector<float> out(prompt.q.size());
  layer.prefill(zeromerge::rows(prompt.q.data(), prompt.count, q_heads, dim),
                zeromerge::rows(prompt.k.data(), prompt.count, kv_heads, dim),
                zeromerge::rows(prompt.v.data(), prompt.count, kv_heads, dim),
                zeromerge::out_rows(out.data(), prompt.count, q_heads, dim));
  detail::compare_prefill_scores(trace, layer, differences);
  layer.finish_prompt();
  detail::compare(trace, layer, out, trace.after_prefill, differences);

  out.resize(q_heads * dim);
  for (std::size_t t = 0; t < trace.decoded.count; ++t) {
    layer.decode(zeromerge::rows(&trace.decoded.q[t * q_heads * dim], 1, q_heads, dim),
                 zeromerge::rows(&trace.decoded.k[t * kv_heads * dim], 1, kv_heads, dim),
                 zeromerge::rows(&trace.decoded.v[t * kv_heads * dim], 1, kv_heads, dim),
                 zeromerge::out_rows(out.data(), 1, q_heads, dim));
    detail::compare(trace, layer, out, trace.after_step[t], differences);
  }
  return differences;
}

}  // namespace replay
