#include "ropes.hpp"

#include <cstdlib>
#include <cstring>

#include "ggml-backend.h"

namespace zeromerge::plugin {
namespace {

// Places of ggml_rope_ext's parameters in op_params.
enum Place { kDims = 1, kMode = 2, kOriginalContext = 4, kFirstFloat = 5, kFirst = 15 };

float number(const ggml_tensor* op, int place) {
  float x;
  std::memcpy(&x, op->op_params + place, sizeof x);
  return x;
}

bool read(const ggml_tensor* op, RopeParams& p) {
  const int mode = op->op_params[kMode];
  if (mode != GGML_ROPE_TYPE_NORMAL && mode != GGML_ROPE_TYPE_NEOX)
    return false;  // several positions a token
  p.dims = static_cast<std::size_t>(op->op_params[kDims]);
  p.first = static_cast<std::size_t>(op->op_params[kFirst]);
  p.pairs = mode == GGML_ROPE_TYPE_NEOX ? RopePairs::halves : RopePairs::neighbours;
  p.original_context = static_cast<std::size_t>(op->op_params[kOriginalContext]);
  p.base = static_cast<double>(number(op, kFirstFloat));
  p.scale = static_cast<double>(number(op, kFirstFloat + 1));
  p.extrapolation = static_cast<double>(number(op, kFirstFloat + 2));
  p.attention = static_cast<double>(number(op, kFirstFloat + 3));
  p.beta_fast = static_cast<double>(number(op, kFirstFloat + 4));
  p.beta_slow = static_cast<double>(number(op, kFirstFloat + 5));
  const ggml_tensor* factors = op->src[2];
  if (factors == nullptr) return true;
  if (factors->type != GGML_TYPE_F32 || factors->data == nullptr || factors->buffer == nullptr ||
      !ggml_backend_buffer_is_host(factors->buffer))
    return false;
  const auto* x = static_cast<const float*>(factors->data);
  p.factors.assign(x, x + p.dims / 2);
  return true;
}

bool same(const RopeParams& a, const RopeParams& b) {
  return a.dims == b.dims && a.first == b.first && a.pairs == b.pairs && a.base == b.base &&
         a.scale == b.scale && a.factors == b.factors && a.extrapolation == b.extrapolation &&
         a.attention == b.attention && a.beta_fast == b.beta_fast && a.beta_slow == b.beta_slow &&
         a.original_context == b.original_context;
}

}  // namespace

Ropes& Ropes::get() {
  static Ropes ropes;
  return ropes;
}

void Ropes::see(const ggml_tensor* op) {
  constexpr char kName[] = "Kcur-";
  if (op->op != GGML_OP_ROPE || std::strncmp(op->name, kName, sizeof kName - 1) != 0) return;
  const int layer = std::atoi(op->name + sizeof kName - 1);
  RopeParams params;
  const bool known = read(op, params);
  const std::lock_guard lock(mutex_);
  std::shared_ptr<const Rope>& rope = layers_[layer];
  if (known && rope != nullptr && same(rope->params(), params)) return;
  rope = nullptr;
  try {
    if (known) rope = std::make_shared<Rope>(params, static_cast<std::size_t>(op->ne[0]));
  } catch (const std::exception&) {
    // Parameters that make no rotation: as if nothing were known.
  }
}

std::shared_ptr<const Rope> Ropes::of(int layer) const {
  const std::lock_guard lock(mutex_);
  const auto found = layers_.find(layer);
  return found == layers_.end() ? nullptr : found->second;
}

}  // namespace zeromerge::plugin
