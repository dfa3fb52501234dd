// One attention layer of a model, as its operators describe it.
#pragma once

#include <memory>

#include "ggml.h"
#include "zeromerge/core/geometry.hpp"
#include "zeromerge/core/rope.hpp"

namespace zeromerge::plugin {

struct ModelLayer {
  int number = -1;                 // in the model
  const ggml_tensor* k = nullptr;  // its cells: [row][cells][streams]
  const ggml_tensor* v = nullptr;
  LayerShape shape{};
  std::shared_ptr<const Rope> rope{};  // null: none that is known
};

}  // namespace zeromerge::plugin
