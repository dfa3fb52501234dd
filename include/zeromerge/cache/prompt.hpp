// Attention of many query rows over the heads of one layer, and what their columns add to the scores.
//   rows     items = (kv head, block of query rows)
//   columns  rows that count for the score keep a strip of logits, so that their probabilities are added up
//            by column in the same pass; a head's rows are dealt to kColumnParts items, whose sums are added
//            in order, so that results do not depend on threads
#pragma once

#include <atomic>
#include <cstddef>
#include <span>

#include "zeromerge/cache/attend.hpp"
#include "zeromerge/kernels/prefill_buffer.hpp"

namespace zeromerge::detail {

inline constexpr std::size_t kColumnParts = 4;

// The columns of the last rows of a prompt call: score[j] <- keep * score[j] + sum over the last
// weight.size() tokens of weight[token] * probability, or the larger of keep * score[j] and the largest of
// these products.
struct ColumnUpdate {
  std::span<const float> weight;  // of the last tokens; empty: nothing changes
  float keep = 1.0f;
  kernels::ColumnStatistic statistic = kernels::ColumnStatistic::sum;
  float* into = nullptr;    // [kv_heads][entries] in place of the heads' scores
  std::size_t entries = 0;  // the first of a head, with `into`
};

// A block of stacked rows [first, first + count) of one head; row r belongs to token r / group and sees
// `before` + token + 1 entries.
template <class H>
struct RowBlock {
  std::size_t limit[kernels::kRowBlock];
  float sink[kernels::kRowBlock];
  kernels::PrefillRows rows;

  // Stacks the rows at `q`: [count][q_stride].
  RowBlock(const LayerView<H>& layer, const RowView& queries, std::size_t h, std::size_t first,
           std::size_t count, float* q) noexcept {
    const std::size_t tokens = queries.tokens;
    const std::size_t group = layer.group();
    const H& head = layer.heads[h];
    stack_rows(layer, queries, h, first, count, q);
    rows = {q,
            layer.q_stride(),
            count,
            limit,
            head.fields().mass ? head.bias() : nullptr,
            layer.sinks != nullptr ? sink : nullptr,
            layer.geometry.logit_softcap};
    for (std::size_t r = 0; r < count; ++r) {
      limit[r] = head.size() - tokens + (first + r) / group + 1;
      if (layer.sinks != nullptr) sink[r] = layer.sinks[h * group + (first + r) % group] * kernels::kLog2E;
    }
  }
};

template <class H>
class PromptPass {
 public:
  PromptPass(const LayerView<H>& layer, const RowView& q, const OutView& out, const ColumnUpdate& columns,
             float* local)
      : layer_(layer),
        q_(q),
        out_(out),
        columns_(columns),
        local_(local),
        rows_(q.tokens * layer.group()),
        plain_((q.tokens - columns.weight.size()) * layer.group()) {
    for (const H& head : layer.heads)
      longest_ = std::max(longest_, kernels::round_up(head.size(), kernels::kTile));
    strip_rows_ = kernels::strip_rows(longest_);
  }

  void run() {
    const std::size_t heads = layer_.heads.size();
    const std::size_t plain = blocks(plain_, kernels::kRowBlock) * heads;
    const std::size_t parts = columns_.weight.empty() ? 0 : kColumnParts * heads;
    if (parts != 0) partial_ = layer_.workspace.floats(Workspace::columns, parts * longest_);
    for_items(plain + parts, [&](std::size_t item, const Lane& lane) {
      if (item < plain)
        attend_plain(item % heads, item / heads * kernels::kRowBlock, lane);
      else
        attend_part((item - plain) % heads, (item - plain) / heads, lane);
    });
    if (parts != 0) layer_.executor(heads, [&](std::size_t h) { add_parts(h); });
  }

 private:
  struct Lane {
    kernels::PrefillScratch scratch;
    float* queries;  // [kRowBlock][q_stride]
    float* result;   // [kRowBlock][row_size]
  };

  static std::size_t blocks(std::size_t rows, std::size_t size) noexcept { return (rows + size - 1) / size; }

  // Runs item(i, lane) for all items; later items first, since they see more keys.
  template <class Item>
  void for_items(std::size_t items, const Item& item) {
    if (items == 0) return;
    const std::size_t row_size = layer_.heads[0].row_size();
    const std::size_t wide = row_size * kernels::kKeyBlock;
    const std::size_t logits = kernels::kRowBlock * kernels::kKeyBlock;
    // A stride that is no power of two spreads the rows of a strip over the sets of a cache.
    const std::size_t strip_stride = kernels::round_up(longest_, kernels::kKeyBlock) + kernels::kTile;
    const std::size_t strip = columns_.weight.empty() ? 0 : strip_rows_ * strip_stride;
    const std::size_t queries = kernels::kRowBlock * layer_.q_stride();
    const std::size_t lane_size =
        wide + logits + 4 * kernels::kRowBlock + strip + 2 * queries + kernels::kRowBlock * row_size;
    const std::size_t lanes = std::min(items, Workspace::lane_count());
    float* base = layer_.workspace.floats(Workspace::lanes, lanes * lane_size);
    std::atomic<std::size_t> next{0};
    layer_.executor(lanes, [&](std::size_t number) {
      float* p = base + number * lane_size;
      Lane lane{};
      const auto take = [&](std::size_t n) { return std::exchange(p, p + n); };
      lane.scratch.wide = take(wide);
      lane.scratch.rows = take(queries);
      lane.scratch.logits = take(logits);
      lane.scratch.maximum = take(kernels::kRowBlock);
      lane.scratch.sum = take(kernels::kRowBlock);
      lane.scratch.factor = take(kernels::kRowBlock);
      lane.scratch.local = local_ == nullptr ? nullptr : take(kernels::kRowBlock);
      lane.scratch.strip = take(strip);
      lane.scratch.strip_stride = strip_stride;
      lane.queries = take(queries);
      lane.result = p;
      for (std::size_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < items;)
        item(items - 1 - i, lane);
    });
  }

  template <class Kernel>
  void attend(std::size_t h, std::size_t first, std::size_t count, const Lane& lane, const Kernel& kernel) {
    const H& head = layer_.heads[h];
    const std::size_t group = layer_.group();
    const RowBlock<H> block(layer_, q_, h, first, count, lane.queries);
    // Where the results go is scattered over memory; by the time they are there, so are the lines.
    for (std::size_t r = 0; r < count; ++r)
      for (std::size_t d = 0; d < head.head_dim(); d += 16)
        __builtin_prefetch(out_.row((first + r) / group, h * group + (first + r) % group) + d, 1, 2);
    head.keys().visit([&](const auto& keys) {
      head.values().visit(
          [&](const auto& values) { kernel(block.rows, kernels::wide(keys), kernels::wide(values)); });
    });
    for (std::size_t r = 0; r < count; ++r) {
      const std::size_t token = (first + r) / group;
      const std::size_t query_head = h * group + (first + r) % group;
      std::copy_n(lane.result + r * head.row_size(), head.head_dim(), out_.row(token, query_head));
      if (local_ != nullptr) local_[token * layer_.geometry.query_heads + query_head] = lane.scratch.local[r];
    }
  }

  void attend_plain(std::size_t h, std::size_t first, const Lane& lane) {
    attend(h, first, std::min(kernels::kRowBlock, plain_ - first), lane,
           [&](const kernels::PrefillRows& rows, const kernels::WideRows& keys,
               const kernels::WideRows& values) {
             kernels::attend_rows(rows, keys, values, lane.scratch, lane.result);
           });
  }

  void attend_part(std::size_t h, std::size_t part, const Lane& lane) {
    float* column = partial_ + (part * layer_.heads.size() + h) * longest_;
    std::fill_n(column, longest_, 0.0f);
    const std::size_t all = blocks(rows_ - plain_, strip_rows_);
    for (std::size_t b = part * all / kColumnParts; b < (part + 1) * all / kColumnParts; ++b) {
      const std::size_t first = plain_ + b * strip_rows_;
      const std::size_t count = std::min(strip_rows_, rows_ - first);
      float weight[kernels::kRowBlock];
      for (std::size_t r = 0; r < count; ++r)
        weight[r] = columns_.weight[(first + r - plain_) / layer_.group()];
      attend(h, first, count, lane,
             [&](const kernels::PrefillRows& rows, const kernels::WideRows& keys,
                 const kernels::WideRows& values) {
               kernels::attend_rows_with_columns(rows, weight, columns_.statistic, keys, values, lane.scratch,
                                                 lane.result, column);
             });
    }
  }

  void add_parts(std::size_t h) {
    const H& head = layer_.heads[h];
    const bool largest = columns_.statistic == kernels::ColumnStatistic::maximum;
    const bool own = columns_.into == nullptr;
    float* score = own ? head.score() : columns_.into + h * columns_.entries;
    for (std::size_t j = 0; j < (own ? head.size() : columns_.entries); ++j) {
      float x = score[j] * columns_.keep;
      for (std::size_t part = 0; part < kColumnParts; ++part) {
        const float y = partial_[(part * layer_.heads.size() + h) * longest_ + j];
        x = largest ? std::max(x, y) : x + y;
      }
      score[j] = x;
    }
  }

  const LayerView<H>& layer_;
  const RowView& q_;
  const OutView& out_;
  const ColumnUpdate& columns_;
  float* local_;       // [tokens][query_heads] or null
  std::size_t rows_;   // stacked rows of a head
  std::size_t plain_;  // those of them that count for no column
  std::size_t longest_ = kernels::kTile;
  std::size_t strip_rows_;
  float* partial_ = nullptr;  // [kColumnParts][kv_heads][longest_]
};

// Causal attention of the tokens of q, whose own entries are the last of every head. Unless null, local
// [tokens][query_heads] receives the local sums of QueryRows.
template <class H>
void attend_prompt(const LayerView<H>& layer, const RowView& q, const OutView& out,
                   const ColumnUpdate& columns, float* local = nullptr) {
  PromptPass<H>(layer, q, out, columns, local).run();
}

}  // namespace zeromerge::detail
