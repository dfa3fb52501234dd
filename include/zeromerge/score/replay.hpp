// Importance by replay: who would be looked at if the prompt were read again right behind itself. Each stored
// query q_i is turned from position i to N + i (q~_i) and competes for the N entries with what it saw the
// first time, which stands for the local keys of the second reading:
//   a_ij = exp(q~_i k_j) / (sum over j' of exp(q~_i k_j') + sum over 0 < j' <= i of exp(q_i k_j'))
//   importance_j = max over the queries i and the group's query heads of a_ij
// The second sum is left by the prompt's own attention (QueryRows). One pass; a second reading (KVzip, arXiv
// 2505.23416) finds the same entries by really reading twice. Of queries that are no longer there (a restored
// past) nothing is asked. Where the CPU multiplies bf16, queries and keys are rounded to it, each number by
// 2^-9 of itself at most.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "zeromerge/kernels/prefill_buffer.hpp"
#include "zeromerge/score/prompt_score.hpp"

namespace zeromerge {

namespace detail {

template <class H>
class ReplayPass {
 public:
  explicit ReplayPass(const PromptView<H>& view)
      : g_(view.geometry),
        rope_(*view.rope),
        turn_(rope_.turn(static_cast<double>(view.tokens))),
        queries_(view.queries),
        heads_(view.heads) {}

  // The work of a head is dealt to kParts items, whose maxima do not depend on threads.
  Ratings importance(const Executor& executor) const {
    std::vector<kernels::ReadyKeys> keys(heads_.size());
    executor(heads_.size(), [&](std::size_t h) { keys[h] = ready(heads_[h]); });
    Ratings parts(heads_.size() * kParts);
    for (std::size_t i = 0; i < parts.size(); ++i)
      parts[i].assign(kernels::round_up(heads_[i / kParts].size(), kernels::kKeyBlock), 0.0f);
    executor(parts.size(),
             [&](std::size_t i) { replay(i / kParts, i % kParts, keys[i / kParts].view(), parts[i]); });
    Ratings all(heads_.size());
    for (std::size_t h = 0; h < heads_.size(); ++h) {
      all[h].assign(heads_[h].size(), 0.0f);
      for (std::size_t p = 0; p < kParts; ++p)
        for (std::size_t j = 0; j < all[h].size(); ++j)
          all[h][j] = std::max(all[h][j], parts[h * kParts + p][j]);
    }
    return all;
  }

 private:
  static constexpr std::size_t kParts = 4;
  // A strip of logits leaves room for the panels of a usual prompt's keys in a core's cache, and has rows
  // that every level multiplies in whole steps.
  static constexpr std::size_t kStripFloats = std::size_t{3} << 16;
  static constexpr std::size_t kLeastRows = 16;
  static constexpr std::size_t kMostRows = 48;

  static kernels::ReadyKeys ready(const H& head) {
    return head.keys().visit(
        [&](const auto& keys) { return kernels::ReadyKeys(kernels::wide(keys), head.size()); });
  }

  void replay(std::size_t h, std::size_t part, const kernels::KeyPanels& keys,
              std::vector<float>& column) const {
    const H& head = heads_[h];
    const std::size_t rows = queries_.tokens() * g_.group();
    const std::size_t size =
        std::clamp<std::size_t>(kStripFloats / head.size() / kLeastRows * kLeastRows, kLeastRows, kMostRows);
    const std::size_t blocks = (rows + size - 1) / size;
    kernels::PrefillBuffer buffer(size, head.row_size(), head.size(), true);
    const float* bias = head.fields().mass ? head.bias() : nullptr;
    for (std::size_t b = part * blocks / kParts; b < (part + 1) * blocks / kParts; ++b) {
      const std::size_t first = b * size;
      const std::size_t count = std::min(size, rows - first);
      for (std::size_t r = 0; r < count; ++r) {
        const std::size_t token = (first + r) / g_.group();
        const std::size_t query_head = h * g_.group() + (first + r) % g_.group();
        queries_.read(token, query_head, kernels::kLog2E, buffer.query(r));
        rope_.apply(turn_, buffer.query(r));
        buffer.limit()[r] = head.size();
        buffer.sink()[r] = queries_.local_sum(token, query_head);
      }
      kernels::column_maxima(buffer.rows(count, bias, true, g_.logit_softcap), keys, buffer.scratch(),
                             column.data());
    }
  }

  LayerShape g_;
  const Rope& rope_;
  RopeTurn turn_;
  const QueryRows& queries_;
  std::span<const H> heads_;
};

}  // namespace detail

struct Replay {
  bool needs_queries() const noexcept { return true; }
  bool needs_rope() const noexcept { return true; }
  bool lasts() const noexcept { return true; }
  template <class H>
  Ratings rate(const PromptView<H>& view) const {
    if (view.queries.tokens() == 0) return {};
    return detail::ReplayPass<H>(view).importance(view.executor);
  }
};
static_assert(PromptScore<Replay>);

}  // namespace zeromerge
