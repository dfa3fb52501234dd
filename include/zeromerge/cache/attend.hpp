// Attention over the heads of one layer: splits the work into items that do not depend on the number of
// threads, and combines.
//   decode   items = (kv head, segment of kSegment entries); partial (maximum, sum, out) combine exactly
//   prefill  items = (kv head, block of query rows)
//   columns  items = (kv head, run of key blocks): decayed column sums, without ever storing a row of
//   probabilities
#pragma once

#include <atomic>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

#include "zeromerge/cache/workspace.hpp"
#include "zeromerge/core/geometry.hpp"
#include "zeromerge/core/parallel.hpp"
#include "zeromerge/core/rows.hpp"
#include "zeromerge/storage/head.hpp"

namespace zeromerge::detail {

// to[i] = row[i] * factor in f32 for a caller's row of n elements.
inline void read_row(const void* row, Element type, std::size_t n, float factor, float* to) noexcept {
  switch (type) {
    case Element::f16:
      return kernels::widen(static_cast<const f16*>(row), n, factor, to);
    case Element::bf16:
      return kernels::widen(static_cast<const bf16*>(row), n, factor, to);
    default:
      return kernels::widen(static_cast<const float*>(row), n, factor, to);
  }
}

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
  const Geometry& geometry;
  std::span<H> heads;
  Workspace& workspace;
  const Executor& executor;

  std::size_t group() const noexcept { return geometry.group(); }
  std::size_t q_stride() const noexcept {
    return heads[0].row_size();
  }  // at least 2 * pairs: rows are padded with zeros
};

// Scaled queries in f32, stacked per kv head: [kv_heads][tokens * group][q_stride].
template <class H>
float* stack_queries(const LayerView<H>& layer, const RowView& q) {
  const std::size_t stride = layer.q_stride();
  const std::size_t group = layer.group();
  const std::size_t dim = layer.geometry.head_dim;
  float* stacked = layer.workspace.floats(Workspace::queries, q.tokens * layer.geometry.query_heads * stride);
  const float scale = layer.geometry.attention_scale();
  run_items(layer.executor, q.tokens >= kCopiesFrom, layer.geometry.kv_heads, [&](std::size_t h) {
    float* to = stacked + h * q.tokens * group * stride;
    for (std::size_t t = 0; t < q.tokens; ++t)
      for (std::size_t g = 0; g < group; ++g, to += stride) {
        read_row(q.row(t, h * group + g), q.type, dim, scale, to);
        std::fill(to + dim, to + stride, 0.0f);
      }
  });
  return stacked;
}

// ---- decode

template <class H>
struct DecodePlan {
  std::size_t group;
  std::size_t q_stride;
  std::vector<std::size_t>& offset;  // [kv_heads + 1] segments before each head
  float* logits;                     // per head [group][padded entries], heads one after another
  std::vector<std::size_t>& row;     // [kv_heads] where a head's logits start
  float* out;                        // [segments][group][row_size]
  float* maximum;                    // [segments][group]
  float* sum;                        // [segments][group]
};

template <class H>
DecodePlan<H> plan_decode(const LayerView<H>& layer, std::vector<std::size_t>& offset,
                          std::vector<std::size_t>& row) {
  const std::size_t heads = layer.heads.size();
  const std::size_t group = layer.group();
  offset.assign(heads + 1, 0);
  row.assign(heads, 0);
  std::size_t floats = 0;
  for (std::size_t h = 0; h < heads; ++h) {
    const std::size_t n = layer.heads[h].size();
    offset[h + 1] = offset[h] + (n + kernels::kSegment - 1) / kernels::kSegment;
    row[h] = floats;
    floats += group * kernels::round_up(n, kernels::kTile);
  }
  const std::size_t parts = offset[heads] * group;
  Workspace& w = layer.workspace;
  float* sums = w.floats(Workspace::partial_sum, 2 * parts);
  return {group,  layer.q_stride(),
          offset, w.floats(Workspace::logits, floats),
          row,    w.floats(Workspace::partial_out, parts * layer.heads[0].row_size()),
          sums,   sums + parts};
}

// One segment of one head: logits become exp(logit - maximum), the output is not yet divided by the sum.
template <class H>
void attend_segment(const LayerView<H>& layer, const DecodePlan<H>& plan, const float* q, std::size_t h,
                    std::size_t segment) noexcept {
  const H& head = layer.heads[h];
  const std::size_t first = segment * kernels::kSegment;
  const std::size_t n = std::min(kernels::kSegment, head.size() - first);
  const std::size_t padded = kernels::round_up(head.size(), kernels::kTile);
  const auto keys = head.keys();
  float* logits = plan.logits + plan.row[h] + first;
  kernels::logits(q, plan.q_stride, plan.group, keys.tiles + first / kernels::kTile * keys.tile_size,
                  keys.tile_size, keys.pairs, keys.bias != nullptr ? keys.bias + first : nullptr,
                  (n + kernels::kTile - 1) / kernels::kTile, logits, padded);
  const std::size_t part = (plan.offset[h] + segment) * plan.group;
  if (layer.geometry.logit_softcap > 0.0f) soft_cap(layer, keys.bias, first, n, plan.group, padded, logits);
  for (std::size_t g = 0; g < plan.group; ++g)
    plan.sum[part + g] = kernels::exponentials(logits + g * padded, n, plan.maximum[part + g]);
  kernels::weighted_sum(logits, padded, plan.group, head.values() + first * head.row_size(), head.row_size(),
                        n, plan.out + part * head.row_size());
}

// The cap applies to the scaled dot product, before the entry's bias.
template <class H>
void soft_cap(const LayerView<H>& layer, const float* bias, std::size_t first, std::size_t n,
              std::size_t group, std::size_t stride, float* logits) noexcept {
  const float cap = layer.geometry.logit_softcap;
  for (std::size_t g = 0; g < group; ++g)
    for (std::size_t j = 0; j < n; ++j) {
      const float b = bias != nullptr ? bias[first + j] : 0.0f;
      float& x = logits[g * stride + j];
      x = cap * std::tanh((x - b) / cap) + b;
    }
}

// Adds up a head's segments: writes the output rows (and lse [query_heads] unless null) and leaves
// factor[g][segment] = what turns a stored exponential into a probability in plan.maximum.
template <class H>
void combine_segments(const LayerView<H>& layer, const DecodePlan<H>& plan, std::size_t h, const OutView& out,
                      float* lse) noexcept {
  const H& head = layer.heads[h];
  const std::size_t segments = plan.offset[h + 1] - plan.offset[h];
  alignas(64) float row[kMaxHeadDim];
  for (std::size_t g = 0; g < plan.group; ++g) {
    const auto part = [&](std::size_t s) { return (plan.offset[h] + s) * plan.group + g; };
    float maximum = plan.maximum[part(0)];
    for (std::size_t s = 1; s < segments; ++s) maximum = std::max(maximum, plan.maximum[part(s)]);
    double sum = 0.0;
    for (std::size_t s = 0; s < segments; ++s)
      sum += static_cast<double>(plan.sum[part(s)]) *
             std::exp(static_cast<double>(plan.maximum[part(s)] - maximum));
    for (std::size_t s = 0; s < segments; ++s) {
      const auto factor =
          static_cast<float>(std::exp(static_cast<double>(plan.maximum[part(s)] - maximum)) / sum);
      plan.maximum[part(s)] = factor;
      kernels::add_scaled(plan.out + part(s) * head.row_size(), factor, head.row_size(), row, s == 0);
    }
    std::copy_n(row, head.head_dim(), out.row(0, h * plan.group + g));
    if (lse != nullptr) lse[h * plan.group + g] = maximum + static_cast<float>(std::log(sum));
  }
}

// score <- decay * score + probabilities summed over the group.
template <class H>
void add_probabilities(const LayerView<H>& layer, const DecodePlan<H>& plan, std::size_t h,
                       float decay) noexcept {
  const H& head = layer.heads[h];
  const std::size_t padded = kernels::round_up(head.size(), kernels::kTile);
  for (std::size_t s = 0, first = 0; first < head.size(); ++s, first += kernels::kSegment)
    kernels::decay_and_add(head.score() + first, std::min(kernels::kSegment, head.size() - first), decay,
                           plan.logits + plan.row[h] + first, padded,
                           plan.maximum + (plan.offset[h] + s) * plan.group, plan.group);
}

// ---- prefill and columns

// Runs item(i, scratch) for all items; later items first, since they see more keys.
template <class H, class Item>
void for_items(const LayerView<H>& layer, std::size_t items, const Item& item) {
  if (items == 0) return;
  const H& head = layer.heads[0];
  const std::size_t wide = std::max(2 * head.pairs(), head.row_size()) * kernels::kKeyBlock;
  const std::size_t logits = kernels::kRowBlock * kernels::kKeyBlock;
  const std::size_t out = kernels::kRowBlock * head.row_size();
  const std::size_t lane_size = wide + logits + 2 * kernels::kRowBlock + out;
  const std::size_t lanes = std::min(items, Workspace::lane_count());
  float* base = layer.workspace.floats(Workspace::lanes, lanes * lane_size);
  std::atomic<std::size_t> next{0};
  layer.executor(lanes, [&](std::size_t lane) {
    float* p = base + lane * lane_size;
    const kernels::PrefillScratch scratch{p, p + wide, p + wide + logits,
                                          p + wide + logits + kernels::kRowBlock};
    float* rows = p + wide + logits + 2 * kernels::kRowBlock;
    for (std::size_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < items;)
      item(items - 1 - i, scratch, rows);
  });
}

// A block of stacked rows [first, first + count) of head h; row r belongs to token r / group and sees
// `before` + token + 1 entries.
struct RowBlock {
  std::size_t limit[kernels::kRowBlock];
  kernels::PrefillRows rows;
  RowBlock(const float* q, std::size_t stride, std::size_t first, std::size_t count, std::size_t group,
           std::size_t before) noexcept
      : rows{q + first * stride, stride, count, limit} {
    for (std::size_t r = 0; r < count; ++r) limit[r] = before + (first + r) / group + 1;
  }
};

// Causal attention of `tokens` query rows, the last entries of every head being their own. lse:
// [kv_heads][tokens * group].
template <class H>
void attend_prompt(const LayerView<H>& layer, const float* stacked, std::size_t tokens, const OutView& out,
                   float* lse) {
  const std::size_t group = layer.group();
  const std::size_t rows = tokens * group;
  const std::size_t blocks = (rows + kernels::kRowBlock - 1) / kernels::kRowBlock;
  const std::size_t heads = layer.heads.size();
  for_items(layer, blocks * heads,
            [&](std::size_t item, const kernels::PrefillScratch& scratch, float* result) {
              const std::size_t h = item % heads;
              const std::size_t first = item / heads * kernels::kRowBlock;
              const std::size_t count = std::min(kernels::kRowBlock, rows - first);
              const H& head = layer.heads[h];
              const RowBlock block(stacked + h * rows * layer.q_stride(), layer.q_stride(), first, count,
                                   group, head.size() - tokens);
              kernels::attend_rows(block.rows, head.keys(), head.values(), head.row_size(),
                                   layer.geometry.logit_softcap, scratch, result, lse + h * rows + first);
              for (std::size_t r = 0; r < count; ++r)
                std::copy_n(result + r * head.row_size(), head.head_dim(),
                            out.row((first + r) / group, h * group + (first + r) % group));
            });
}

// score[j] <- score[j] * keep + sum over the last `tokens` query rows of weight[token] * a_j. weight:
// [tokens].
template <class H>
void add_columns(const LayerView<H>& layer, const float* stacked, std::size_t tokens, const float* lse,
                 std::span<const float> weight, float keep) {
  const std::size_t group = layer.group();
  const std::size_t rows = tokens * group;
  const std::size_t heads = layer.heads.size();
  std::size_t longest = 0;
  for (const H& head : layer.heads) longest = std::max(longest, head.size());
  const std::size_t blocks = (longest + kernels::kKeyBlock - 1) / kernels::kKeyBlock;
  for_items(layer, blocks * heads, [&](std::size_t item, const kernels::PrefillScratch& scratch, float*) {
    const std::size_t h = item % heads;
    const std::size_t first_key = item / heads * kernels::kKeyBlock;
    const H& head = layer.heads[h];
    if (first_key >= head.size()) return;
    const std::size_t columns =
        kernels::round_up(std::min(kernels::kKeyBlock, head.size() - first_key), kernels::kTile);
    alignas(64) float column[kernels::kKeyBlock];
    for (std::size_t j = 0; j < columns; ++j) column[j] = head.score()[first_key + j] * keep;
    const std::size_t before = head.size() - tokens;
    // Rows whose limit does not reach this block add nothing.
    const std::size_t from = first_key > before ? (first_key - before) * group : 0;
    for (std::size_t first = from; first < rows; first += kernels::kRowBlock) {
      const std::size_t count = std::min(kernels::kRowBlock, rows - first);
      const RowBlock block(stacked + h * rows * layer.q_stride(), layer.q_stride(), first, count, group,
                           before);
      float row_weight[kernels::kRowBlock];
      for (std::size_t r = 0; r < count; ++r) row_weight[r] = weight[(first + r) / group];
      kernels::column_mass(block.rows, row_weight, lse + h * rows + first, head.keys(), first_key, columns,
                           layer.geometry.logit_softcap, scratch, column);
    }
    for (std::size_t j = 0; j < columns; ++j) head.score()[first_key + j] = column[j];
  });
}

}  // namespace zeromerge::detail
