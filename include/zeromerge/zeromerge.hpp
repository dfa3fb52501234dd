// All of zeromerge in one include: a KV cache that stays small while a transformer uses it.
//
//   using namespace zeromerge;
//   Geometry g{.layers = 30, .query_heads = 9, .kv_heads = 3, .head_dim = 64};
//   auto cache = make_cache("zeromerge:budget=5%", g);
//   cache->layer(i).prefill(q, k, v, out);   // a prompt, whole or in chunks; views by rows() and out_rows()
//   cache->layer(i).decode(q, k, v, out);    // one token; the first call compresses the prompt
//
// Composed at compile time instead: KvCache<ZeroMerge<f16>> or KvCache<Policy<MyScore, UniformBudget,
// ResidualMerge>>.
#pragma once

#define ZEROMERGE_VERSION_MAJOR 0
#define ZEROMERGE_VERSION_MINOR 1
#define ZEROMERGE_VERSION_PATCH 0

#include "zeromerge/cache/cache.hpp"
#include "zeromerge/cache/presets.hpp"
