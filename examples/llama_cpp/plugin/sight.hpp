// What the tokens of a call see of the past, read from its mask. All layers of a graph share it, so it is
// read once per graph.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "ggml.h"

namespace zeromerge::plugin {

struct Sight {
  const ggml_tensor* mask = nullptr;
  std::vector<std::size_t> written;  // the cells of the call's tokens, in their order
  std::vector<std::size_t> past;     // the cells that the first token sees beside its own, rising
  bool causal = false;               // every further token sees what the one before it saw, and itself
  std::uint64_t number = 0;
  std::uint64_t follows = 0;  // the sight whose past and tokens are this one's past; 0: none
};

// mask: f16 [cells][tokens][1][streams or 1]; `stream` counts within it.
Sight read_sight(const ggml_tensor* mask, std::size_t stream, std::size_t tokens,
                 std::vector<std::size_t> written);

// Whether `next` continues `last`: nothing was taken away, nothing came but its tokens.
bool continues(const Sight& last, const Sight& next);

}  // namespace zeromerge::plugin
