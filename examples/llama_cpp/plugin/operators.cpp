#include "operators.hpp"

#include <cstring>

#include "cells.hpp"
#include "zeromerge/core/errors.hpp"
#include "zeromerge/core/geometry.hpp"
#include "zeromerge/kernels/kernels.hpp"

namespace zeromerge::plugin {

float float_parameter(const ggml_tensor* op, int index) {
  float x = 0.0f;
  std::memcpy(&x, reinterpret_cast<const char*>(op->op_params) + index * 4, sizeof x);
  return x;
}

std::int64_t row_index(const ggml_tensor* index, std::int64_t i) {
  const char* p = static_cast<const char*>(index->data) + static_cast<std::size_t>(i) * index->nb[0];
  if (index->type == GGML_TYPE_I32) return *reinterpret_cast<const std::int32_t*>(p);
  return *reinterpret_cast<const std::int64_t*>(p);
}

namespace {

bool takes_attention(const ggml_tensor* op) {
  const ggml_tensor* q = op->src[0];
  const ggml_tensor* k = op->src[1];
  const ggml_tensor* v = op->src[2];
  const ggml_tensor* mask = op->src[3];
  const ggml_tensor* sinks = op->src[4];
  Element type;
  const bool plain = mask != nullptr && float_parameter(op, 1) == 0.0f && float_parameter(op, 2) >= 0.0f;
  if (sinks != nullptr &&
      (sinks->type != GGML_TYPE_F32 || !ggml_is_contiguous(sinks) || ggml_nelements(sinks) != q->ne[2]))
    return false;
  if (!plain || mask->type != GGML_TYPE_F16 || mask->ne[2] != 1) return false;
  if (q->type != GGML_TYPE_F32 || op->type != GGML_TYPE_F32) return false;
  if (!element_of_type(k->type, type) || !element_of_type(v->type, type)) return false;
  if (!is_cache(root_of(k), 'k') || !is_cache(root_of(v), 'v')) return false;
  const bool shapes = k->ne[0] == v->ne[0] && k->ne[0] == q->ne[0] && k->ne[2] == v->ne[2] &&
                      k->ne[0] <= static_cast<std::int64_t>(kMaxHeadDim) && q->ne[2] % k->ne[2] == 0 &&
                      k->ne[3] == q->ne[3] && v->ne[3] == q->ne[3] &&
                      (mask->ne[3] == 1 || mask->ne[3] == q->ne[3]);
  const bool rows = k->nb[0] == ggml_type_size(k->type) && v->nb[0] == ggml_type_size(v->type) &&
                    q->nb[0] == sizeof(float) && float_parameter(op, 0) > 0.0f;
  return shapes && rows;
}

// The engine's writes of new keys and values to its cells: taken so that the plug-in knows which cells they
// are.
bool takes_write(const ggml_tensor* op) {
  const ggml_tensor* root = root_of(op);
  const ggml_tensor* from = op->src[0];
  const ggml_tensor* index = op->src[1];
  Element type;
  return (is_cache(root, 'k') || is_cache(root, 'v')) && from->type == GGML_TYPE_F32 &&
         from->nb[0] == sizeof(float) && element_of_type(op->type, type) && op->ne[0] == root->ne[0] &&
         op->ne[2] == 1 && op->ne[3] == 1 && from->ne[2] == 1 && from->ne[3] == 1 && index->ne[1] == 1 &&
         (index->type == GGML_TYPE_I64 || index->type == GGML_TYPE_I32);
}

void narrow_row(const float* from, std::size_t n, ggml_type type, void* to) {
  switch (type) {
    case GGML_TYPE_F16:
      return kernels::narrow(from, n, static_cast<f16*>(to));
    case GGML_TYPE_BF16:
      return kernels::narrow(from, n, static_cast<bf16*>(to));
    default:
      return kernels::narrow(from, n, static_cast<float*>(to));
  }
}

}  // namespace

bool takes(const ggml_tensor* op) {
  switch (op->op) {
    case GGML_OP_NONE:
    case GGML_OP_RESHAPE:
    case GGML_OP_VIEW:
    case GGML_OP_PERMUTE:
    case GGML_OP_TRANSPOSE:
      return true;
    case GGML_OP_FLASH_ATTN_EXT:
      return takes_attention(op);
    case GGML_OP_SET_ROWS:
      return takes_write(op);
    default:
      return false;
  }
}

void write_rows(const ggml_tensor* op) {
  const ggml_tensor* from = op->src[0];
  for (std::int64_t t = 0; t < from->ne[1]; ++t) {
    const std::int64_t row = row_index(op->src[1], t);
    if (row < 0 || row >= op->ne[1]) fail("write to row ", row, " of a cache tensor of ", op->ne[1], " rows");
    narrow_row(reinterpret_cast<const float*>(static_cast<const char*>(from->data) +
                                              static_cast<std::size_t>(t) * from->nb[1]),
               static_cast<std::size_t>(op->ne[0]), op->type,
               static_cast<char*>(op->data) + static_cast<std::size_t>(row) * op->nb[1]);
  }
}

}  // namespace zeromerge::plugin
