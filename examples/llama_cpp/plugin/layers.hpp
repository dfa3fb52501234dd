// One attention layer of a model, as its operators describe it.
#pragma once

#include <cstddef>
#include <memory>

#include "ggml.h"
#include "zeromerge/core/rope.hpp"

namespace zeromerge::plugin {

struct LayerShape {
  int number = -1;                 // in the model
  const ggml_tensor* k = nullptr;  // its cells: [row][cells][streams]
  const ggml_tensor* v = nullptr;
  std::size_t query_heads = 0;
  std::size_t kv_heads = 0;
  std::size_t head_dim = 0;
  float scale = 0.0f;
  float softcap = 0.0f;                // 0: none
  std::shared_ptr<const Rope> rope{};  // null: none that is known
};

}  // namespace zeromerge::plugin
