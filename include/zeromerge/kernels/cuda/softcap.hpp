// Logits that a model bounds before its softmax.
#pragma once

#include "zeromerge/kernels/cuda/device.hpp"
#include "zeromerge/kernels/cuda/layout.hpp"

namespace zeromerge::cuda {

// cap * tanh(x / cap), both in units of log 2.
ZEROMERGE_DEVICE float capped(float x, float cap) {
  float y = x / cap * (2.0f * kLog2E);
  y = y > 60.0f ? 60.0f : y < -60.0f ? -60.0f : y;
  return cap * (1.0f - 2.0f / (1.0f + exp2_fast(y)));
}

}  // namespace zeromerge::cuda
