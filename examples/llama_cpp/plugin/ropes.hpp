// The model's rotations, as the plug-in sees them pass: the engine asks of every operator whether the plug-in
// takes it, and the one that rotates a layer's keys carries all parameters.
#pragma once

#include <map>
#include <memory>
#include <mutex>

#include "ggml.h"
#include "zeromerge/core/rope.hpp"

namespace zeromerge::plugin {

class Ropes {
 public:
  static Ropes& get();

  // Takes note of an operator if it rotates a layer's keys ("Kcur-<layer>") in a way the library knows.
  void see(const ggml_tensor* op);

  // Of a layer; null if nothing is known of it.
  std::shared_ptr<const Rope> of(int layer) const;

 private:
  mutable std::mutex mutex_;
  std::map<int, std::shared_ptr<const Rope>> layers_;
};

}  // namespace zeromerge::plugin
