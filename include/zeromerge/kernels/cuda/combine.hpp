// Puts the parts of a decode step together: with M the largest maximum of a query head's splits,
//   S = sum of sum_s 2^(maximum_s - M)      out = (sum of out_s 2^(maximum_s - M)) / S
// One block a query head; the same in any order of splits, for each is added in its own order. Cost: reads
// the parts once, splits * head_dim floats.
#pragma once

#include "zeromerge/kernels/cuda/rows.hpp"

namespace zeromerge::cuda {

// The softmax of a query head over all its splits, and its sink: a logit that takes part without a value.
struct Softmax {
  float maximum;  // in units of log 2
  float sum;
};

struct CombineArguments {
  void* out;           // [batch][query_heads][head_dim]
  float* lse;          // [batch][query_heads] log of the sum of exponentials (natural), or null
  const float* sinks;  // [query_heads] natural logits, or null
  Element out_type;
};

ZEROMERGE_DEVICE unsigned splits_of(const Partials& partials, unsigned entries) {
  return (entries + partials.segment - 1) / partials.segment;
}

// Of query head g of the kv head at `index` of the grid; by a whole warp. total: kv heads of the batch.
ZEROMERGE_DEVICE Softmax softmax_of(const BatchHeads& heads, const Partials& partials, const float* sinks,
                                    unsigned index, unsigned total, unsigned g, unsigned splits) {
  const std::size_t count = std::size_t{total} * partials.splits * heads.group;
  const GlobalSpan<const float> maxima(partials.maximum, count);
  const GlobalSpan<const float> sums(partials.sum, count);
  const std::size_t first = std::size_t{index} * partials.splits * heads.group + g;
  float sink = kMaskedLogit;
  if (sinks != nullptr) {
    const unsigned query_head = index % heads.kv_heads * heads.group + g;
    sink = GlobalSpan<const float>(sinks, heads.kv_heads * heads.group).at(query_head) * kLog2E;
  }
  float most = sink;
  for (unsigned s = lane_index(); s < splits; s += kWarp) {
    const float maximum = maxima[first + std::size_t{s} * heads.group];
    most = most < maximum ? maximum : most;
  }
  most = lanes_maximum<kWarp>(most);
  float sum = sinks != nullptr && lane_index() == 0 ? exp2_fast(sink - most) : 0.0f;
  for (unsigned s = lane_index(); s < splits; s += kWarp) {
    const std::size_t at = first + std::size_t{s} * heads.group;
    sum += sums.at(at) * exp2_fast(maxima.at(at) - most);
  }
  return {most, lanes_sum<kWarp>(sum)};
}

// Query head g by one block.
ZEROMERGE_DEVICE void combine_head(const BatchHeads& heads, const Partials& partials,
                                   const CombineArguments& to, unsigned index, unsigned total, unsigned g,
                                   unsigned entries) {
  const unsigned splits = splits_of(partials, entries);
  const Softmax softmax = softmax_of(heads, partials, to.sinks, index, total, g, splits);
  const std::size_t count = std::size_t{total} * partials.splits * heads.group;
  const GlobalSpan<const float> maxima(partials.maximum, count);
  const GlobalSpan<const float> parts(partials.out, count * heads.head_dim);
  const std::size_t first = std::size_t{index} * partials.splits * heads.group + g;
  const std::size_t query = std::size_t{index} * heads.group + g;
  const std::size_t queries = std::size_t{total} * heads.group;
  for (unsigned d = thread_index(); d < heads.head_dim; d += block_threads()) {
    float x = 0.0f;
    for (unsigned s = 0; s < splits; ++s) {
      const std::size_t at = first + std::size_t{s} * heads.group;
      x += parts.at(at * heads.head_dim + d) * exp2_fast(maxima.at(at) - softmax.maximum);
    }
    write_element(to.out, to.out_type, queries * heads.head_dim, query * heads.head_dim + d, x / softmax.sum);
  }
  if (to.lse != nullptr && thread_index() == 0)
    GlobalSpan<float>(to.lse, queries)[query] = kLn2 * (softmax.maximum + log2_fast(softmax.sum));
}

}  // namespace zeromerge::cuda
