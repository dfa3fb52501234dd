// What policies see of a layer when a prompt has ended: its heads, and the queries that were kept.
#pragma once

#include <cstddef>
#include <span>

#include "zeromerge/core/geometry.hpp"
#include "zeromerge/core/parallel.hpp"
#include "zeromerge/core/rope.hpp"
#include "zeromerge/storage/head.hpp"
#include "zeromerge/storage/query_rows.hpp"

namespace zeromerge {

// One layer at the end of a prompt.
template <class H>
struct PromptView {
  LayerShape geometry;
  std::span<const H> heads;       // [kv_heads], entries in order of arrival
  std::size_t tokens;             // the sequence has seen; `queries` are the newest of them
  const QueryRows& queries;       // empty unless the policy keeps_queries()
  const Rope* rope;               // the model's; null unless the policy needs_rope()
  const float* sinks;             // [query_heads] logits without a value, or null
  const Executor& executor;       // for work on heads side by side
  std::span<const float> second;  // [kv_heads][entries] maxima of a second reading, or empty
};

}  // namespace zeromerge
