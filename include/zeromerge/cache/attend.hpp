// Attention of decoded tokens over the heads of one layer. The work is split into items that do not depend on
// the number of threads, (kv head, segment of kSegment entries), whose partial (maximum, sum, out) combine
// exactly.
#pragma once

#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

#include "zeromerge/cache/workspace.hpp"
#include "zeromerge/core/geometry.hpp"
#include "zeromerge/core/parallel.hpp"
#include "zeromerge/core/rows.hpp"
#include "zeromerge/kernels/read_row.hpp"
#include "zeromerge/storage/head.hpp"

namespace zeromerge::detail {

// Waking threads costs a few microseconds: work that takes no longer runs on the caller's. The choice changes
// no result.
template <class Body>
void run_items(const Executor& executor, bool worth_it, std::size_t items, const Body& body) {
  if (worth_it) return executor(items, body);
  for (std::size_t i = 0; i < items; ++i) body(i);
}
inline constexpr std::size_t kCopiesFrom = 8;  // tokens whose rows are copied
inline constexpr std::size_t kDecodeFrom =
    1'000'000;  // multiplications of a decode step: 20 to 40 us on one core

// What the attention functions of a layer share.
template <class H>
struct LayerView {
  LayerShape geometry;
  std::span<H> heads;
  Workspace& workspace;
  const Executor& executor;
  const float* sinks;  // [query_heads] logits that take part in the softmax without a value, or null

  std::size_t group() const noexcept { return geometry.group(); }
  // Floats of a query row: head_dim padded with zeros, and room for what a stored type's queries need.
  std::size_t q_stride() const noexcept { return heads[0].row_size() + kernels::kQueryTail; }
};

// `count` query rows of kv head h in f32, scaled so that logits come in units of log 2, from row `first` on,
// where a row is token * group + query head of the group: [count][q_stride].
template <class H>
void stack_rows(const LayerView<H>& layer, const RowView& q, std::size_t h, std::size_t first,
                std::size_t count, float* to) {
  const std::size_t stride = layer.q_stride();
  const std::size_t group = layer.group();
  const std::size_t dim = layer.geometry.head_dim;
  const float scale = layer.geometry.attention_scale() * kernels::kLog2E;
  for (std::size_t r = first; r < first + count; ++r, to += stride) {
    read_row(q.row(r / group, h * group + r % group), q.type, dim, scale, to);
    std::fill(to + dim, to + stride, 0.0f);
  }
}

// ---- decode

// The output rows from token `first` on.
inline OutView rows_of(OutView out, std::size_t first) noexcept {
  out.data = out.row(first, 0);
  out.tokens -= first;
  return out;
}

inline constexpr std::size_t segments_of(std::size_t entries) noexcept {
  return (entries + kernels::kSegment - 1) / kernels::kSegment;
}

// Where a call's steps leave what they compute, with room for the largest of them.
struct DecodePlan {
  std::size_t group;
  std::size_t q_stride;
  float* queries;                    // [kv_heads][group][q_stride] of the step
  std::vector<std::size_t>& offset;  // [kv_heads + 1] segments before each head
  float* logits;                     // per head [group][padded entries], heads one after another
  std::vector<std::size_t>& row;     // [kv_heads] where a head's logits start
  float* out;                        // [segments][group][row_size]
  float* maximum;                    // [segments][group]
  float* sum;                        // [segments][group]
  bool apart;                        // heads do not keep step with one another
};

// Held by a layer, so that a step allocates nothing.
struct DecodeScratch {
  std::vector<std::size_t> offset{}, row{};  // see DecodePlan
};

// For steps during which heads grow by `tokens` entries, as far as they have room.
template <class H>
DecodePlan plan_decode(const LayerView<H>& layer, DecodeScratch& scratch, std::size_t tokens) {
  auto& [offset, row] = scratch;
  const std::size_t heads = layer.heads.size();
  const std::size_t group = layer.group();
  offset.assign(heads + 1, 0);
  row.assign(heads, 0);
  std::size_t floats = 0;
  for (std::size_t h = 0; h < heads; ++h) {
    const H& head = layer.heads[h];
    const std::size_t n = std::max(head.size(), std::min(head.size() + tokens, head.capacity()));
    offset[h + 1] = offset[h] + segments_of(n);
    row[h] = floats;
    floats += group * kernels::round_up(n, kernels::kTile);
  }
  const std::size_t parts = offset[heads] * group;
  Workspace& w = layer.workspace;
  float* queries = w.floats(Workspace::queries, heads * group * layer.q_stride());
  float* sums = w.floats(Workspace::partial_sum, 2 * parts);
  return {group,
          layer.q_stride(),
          queries,
          offset,
          w.floats(Workspace::logits, floats),
          row,
          w.floats(Workspace::partial_out, parts * layer.heads[0].row_size()),
          sums,
          sums + parts,
          false};
}

// One segment of one head: logits become 2^(logit - maximum), the output is not yet divided by the sum. Each
// product fetches its own rows a little ahead, and at its end the beginning of what the next one reads.
template <class H>
void attend_segment(const LayerView<H>& layer, const DecodePlan& plan, std::size_t h,
                    std::size_t segment) noexcept {
  const H& head = layer.heads[h];
  const float* q = plan.queries + h * plan.group * plan.q_stride;
  const std::size_t first = segment * kernels::kSegment;
  const std::size_t n = std::min(kernels::kSegment, head.size() - first);
  const std::size_t padded = kernels::round_up(head.size(), kernels::kTile);
  const std::size_t tiles = (n + kernels::kTile - 1) / kernels::kTile;
  const float* bias = head.fields().mass ? head.bias() + first : nullptr;
  float* logits = plan.logits + plan.row[h] + first;
  // What is read after the products is fetched while they run.
  const float* score = head.fields().score ? head.score() + first : nullptr;
  for (const float* field : {bias, score})
    for (std::size_t j = 0; field != nullptr && j < n; j += 16) __builtin_prefetch(field + j, 0, 2);
  const std::size_t part = (plan.offset[h] + segment) * plan.group;
  const float* scale = nullptr;
  head.keys().visit([&](const auto& keys) {
    kernels::logits(q, plan.q_stride, plan.group, keys, first, tiles, logits, padded,
                    head.values().visit([&](const auto& values) { return kernels::address(values, first); }));
    scale = kernels::row_scales(keys, first);
  });
  for (std::size_t g = 0; g < plan.group; ++g)
    plan.sum[part + g] = kernels::exponentials(logits + g * padded, n, scale, layer.geometry.logit_softcap,
                                               bias, plan.maximum[part + g]);
  const std::size_t next = first + kernels::kSegment;
  const bool last = next < head.size() || h + 1 == layer.heads.size() || plan.apart;
  const H& upcoming = last ? head : layer.heads[h + 1];
  const void* ahead = upcoming.keys().visit(
      [&](const auto& keys) { return kernels::address(keys, next < head.size() ? next : 0); });
  head.values().visit([&](const auto& values) {
    kernels::weighted_sum(logits, padded, plan.group, values, first, n, plan.out + part * head.row_size(),
                          ahead);
  });
}

// Adds up a head's segments: writes the output rows (and lse [query_heads] unless null) and leaves
// factor[g][segment] = what turns a stored exponential into a probability in plan.maximum.
template <class H>
void combine_segments(const LayerView<H>& layer, const DecodePlan& plan, std::size_t h, const OutView& out,
                      float* lse) noexcept {
  const H& head = layer.heads[h];
  const std::size_t segments = segments_of(head.size());
  alignas(64) float row[kMaxHeadDim];
  for (std::size_t g = 0; g < plan.group; ++g) {
    const auto part = [&](std::size_t s) { return (plan.offset[h] + s) * plan.group + g; };
    const float sink =
        layer.sinks != nullptr ? layer.sinks[h * plan.group + g] * kernels::kLog2E : kernels::kMasked;
    float maximum = sink;
    for (std::size_t s = 0; s < segments; ++s) maximum = std::max(maximum, plan.maximum[part(s)]);
    double sum = layer.sinks != nullptr ? static_cast<double>(std::exp2(sink - maximum)) : 0.0;
    for (std::size_t s = 0; s < segments; ++s) {
      float& weight = plan.maximum[part(s)];
      weight = std::exp2(weight - maximum);
      sum += static_cast<double>(plan.sum[part(s)]) * static_cast<double>(weight);
    }
    for (std::size_t s = 0; s < segments; ++s) {
      float& factor = plan.maximum[part(s)];
      factor = static_cast<float>(static_cast<double>(factor) / sum);
      kernels::add_scaled(plan.out + part(s) * head.row_size(), factor, head.row_size(), row, s == 0);
    }
    std::copy_n(row, head.head_dim(), out.row(0, h * plan.group + g));
    if (lse != nullptr)
      lse[h * plan.group + g] = kernels::kLn2 * (maximum + static_cast<float>(std::log2(sum)));
  }
}

// score <- decay * score + probabilities summed over the group.
template <class H>
void add_probabilities(const LayerView<H>& layer, const DecodePlan& plan, std::size_t h,
                       float decay) noexcept {
  const H& head = layer.heads[h];
  const std::size_t padded = kernels::round_up(head.size(), kernels::kTile);
  for (std::size_t s = 0, first = 0; first < head.size(); ++s, first += kernels::kSegment)
    kernels::decay_and_add(head.score() + first, std::min(kernels::kSegment, head.size() - first), decay,
                           plan.logits + plan.row[h] + first, padded,
                           plan.maximum + (plan.offset[h] + s) * plan.group, plan.group);
}

// A head's queries of token `t`, made ready for its keys.
template <class H>
void prepare_queries(const LayerView<H>& layer, const DecodePlan& plan, const RowView& q, std::size_t t,
                     std::size_t h) noexcept {
  float* rows = plan.queries + h * plan.group * plan.q_stride;
  stack_rows(layer, q, h, t * plan.group, plan.group, rows);
  layer.heads[h].keys().visit(
      [&](const auto& keys) { kernels::prepare(rows, plan.q_stride, plan.group, keys); });
}

// Whether so many steps are worth waking threads for.
template <class H>
bool is_large(const LayerView<H>& layer, std::size_t tokens) noexcept {
  std::size_t entries = 0;
  for (const auto& head : layer.heads) entries += head.size();
  return 2 * tokens * entries * layer.group() * layer.geometry.head_dim >= kDecodeFrom;
}

// One token's attention, split over heads and segments: writes out and, unless null, lse [query_heads]. Then
// after(plan, head) for every head, in parallel.
template <class H, class After>
void attend_token(const LayerView<H>& layer, const DecodePlan& plan, const RowView& q, const OutView& out,
                  float* lse, const After& after) {
  for (std::size_t h = 0; h < layer.heads.size(); ++h) prepare_queries(layer, plan, q, 0, h);
  const bool large = is_large(layer, 1);
  // Items are those of the plan, which may have room for more segments than there are.
  run_items(layer.executor, large, plan.offset.back(), [&](std::size_t item) {
    std::size_t h = 0;
    while (plan.offset[h + 1] <= item) ++h;
    const std::size_t segment = item - plan.offset[h];
    if (segment < segments_of(layer.heads[h].size())) attend_segment(layer, plan, h, segment);
  });
  run_items(layer.executor, large, layer.heads.size(), [&](std::size_t h) {
    combine_segments(layer, plan, h, out, lse);
    after(plan, h);
  });
}

// Tokens one after another: before(head, token), the token's attention over the head, after(plan, head,
// token). Heads go through them side by side, so that what a head holds stays in a core's cache from token to
// token and threads wait for one another once; where a single step is large enough to be shared out by
// segments, token by token. The same bits either way.
template <class H, class Before, class After>
void attend_tokens(const LayerView<H>& layer, DecodePlan plan, const RowView& q, const OutView& out,
                   const Before& before, const After& after) {
  const std::size_t heads = layer.heads.size();
  if (q.tokens == 1 || (is_large(layer, 1) && plan.offset.back() > heads)) {
    for (std::size_t t = 0; t < q.tokens; ++t) {
      for (std::size_t h = 0; h < heads; ++h) before(h, t);
      attend_token(layer, plan, q.slice(t, 1), rows_of(out, t), nullptr,
                   [&](const DecodePlan& p, std::size_t h) { after(p, h, t); });
    }
    return;
  }
  plan.apart = true;
  run_items(layer.executor, is_large(layer, q.tokens), heads, [&](std::size_t h) {
    for (std::size_t t = 0; t < q.tokens; ++t) {
      before(h, t);
      prepare_queries(layer, plan, q, t, h);
      for (std::size_t s = 0; s < segments_of(layer.heads[h].size()); ++s) attend_segment(layer, plan, h, s);
      combine_segments(layer, plan, h, rows_of(out, t), nullptr);
      after(plan, h, t);
    }
  });
}

}  // namespace zeromerge::detail
