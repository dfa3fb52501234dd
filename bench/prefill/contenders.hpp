// Who answers the same call: a prompt's tokens, the last of those that a layer holds.
#pragma once

#include <memory>
#include <string>

#include "support/memory.hpp"
#include "support/shapes.hpp"
#include "zeromerge/cache/presets.hpp"

namespace bench {

struct PromptData {
  HugeFloats q, k, v;  // of all tokens

  PromptData(const Shape& s, std::size_t tokens)
      : q(random_numbers(tokens * s.query_heads * s.head_dim, 1)),
        k(random_numbers(tokens * s.kv_heads * s.head_dim, 2)),
        v(random_numbers(tokens * s.kv_heads * s.head_dim, 3)) {}
};

// The library, by a policy that needs certain column statistics. The layer holds tokens - chunk tokens; a
// step takes the rest: it stores them, attends and adds up the columns, then goes back.
class OurPrompt {
 public:
  OurPrompt(const Shape& shape, const PromptData& data, std::size_t tokens, std::size_t chunk,
            const std::string& spec, std::size_t threads);
  void step();
  // Of the last step: [chunk][query_heads][head_dim].
  const float* output() const { return out_.data(); }

 private:
  Shape shape_;
  const PromptData& data_;
  std::size_t past_;
  std::size_t chunk_;
  HugeFloats out_;
  std::unique_ptr<zeromerge::AnyCache> cache_;
};

}  // namespace bench
