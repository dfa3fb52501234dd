// What the operators of a graph say before it runs: the engine asks of every one whether the plug-in takes
// it. From that come the layers that share a KV cache, with their shapes and rotations, and which rows of a
// graph have their output asked for. Contexts are told apart by the memory that their operators live in, so
// two models or contexts at once do not disturb each other.
#pragma once

#include <map>
#include <mutex>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "ggml-backend.h"
#include "layers.hpp"

namespace zeromerge::plugin {

class Blueprints {
 public:
  static Blueprints& get();

  // Takes note of an operator that the engine asks about.
  void see(const ggml_tensor* op);

  // The layers whose cells lie in this buffer, which is one KV cache's; by rising number.
  std::vector<ModelLayer> layers_in(const ggml_backend_buffer* cells) const;
  // The rows whose output a graph asks for, i32, if its attention has this mask; null: not known. The graph
  // must be one that is about to be computed.
  const ggml_tensor* outputs_of(const ggml_tensor* mask) const;

  // The KV cache is gone.
  void forget(const ggml_backend_buffer* cells);

 private:
  struct Layer {
    ModelLayer model;
    bool attends = false;  // its attention has been seen, and with it the shape
  };
  struct Outputs {
    const ggml_tensor* rows;
    std::unordered_set<const ggml_tensor*> attention;  // the operators of its graph
    const ggml_backend_buffer* cells;                  // that these read
  };

  Layer& layer_of_cells(const ggml_tensor* k);
  void see_attention(const ggml_tensor* op);
  void see_write(const ggml_tensor* op);
  void see_outputs(const ggml_tensor* op);

  mutable std::mutex mutex_;
  std::unordered_map<const ggml_backend_buffer*, std::map<int, Layer>> caches_;
  std::unordered_map<const ggml_tensor*, Outputs> outputs_;  // by mask
};

}  // namespace zeromerge::plugin
