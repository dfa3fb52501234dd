#include "ropes.hpp"

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

// The operator whose rows these are, seen through views and copies.
const ggml_tensor* behind(const ggml_tensor* rows) {
  for (;;) {
    switch (rows->op) {
      case GGML_OP_VIEW:
      case GGML_OP_RESHAPE:
      case GGML_OP_PERMUTE:
      case GGML_OP_TRANSPOSE:
      case GGML_OP_CONT:
        if (rows->src[0] == nullptr) return rows;
        rows = rows->src[0];
        break;
      default:
        return rows;
    }
  }
}

}  // namespace

std::shared_ptr<const Rope> rope_of_write(const ggml_tensor* write, std::shared_ptr<const Rope> last) {
  const ggml_tensor* op = behind(write->src[0]);
  RopeParams params;
  if (op->op != GGML_OP_ROPE || !read(op, params)) return nullptr;
  if (last != nullptr && same(last->params(), params)) return last;
  try {
    return std::make_shared<Rope>(params, static_cast<std::size_t>(op->ne[0]));
  } catch (const std::exception&) {
    return nullptr;  // parameters that make no rotation: as if nothing were known
  }
}

}  // namespace zeromerge::plugin
