// StreamingLLM (arXiv 2309.17453): the first tokens, which are exempt as sinks, and the newest ones.
//   importance_j = -(queries that could see j)
// A running score: the oldest leaves first, in the prompt and in decode. No attention is asked for and no
// score is kept with the entries, so it costs nothing.
#pragma once

#include <cstddef>

namespace zeromerge {

struct Recency {
  static constexpr bool needs_probabilities = false;
  static constexpr bool ranks = true;  // though no score array is kept
  float decay() const noexcept { return 1.0f; }
  std::size_t tail_rows() const noexcept { return 0; }
  double weight(std::size_t) const noexcept { return 1.0; }
  bool is_importance() const noexcept { return false; }
  float importance(float, std::size_t queries) const noexcept { return -static_cast<float>(queries); }
  float merged(float a, float) const noexcept { return a; }
};

}  // namespace zeromerge
