#include "blueprints.hpp"

#include <cstring>

#include "cells.hpp"
#include "operators.hpp"
#include "ropes.hpp"

namespace zeromerge::plugin {
namespace {

// The name under which llama.cpp asks for rows: an operator that picks them takes it as its index.
constexpr char kOutputs[] = "out_ids";

// All attention operators that `op` depends on.
std::unordered_set<const ggml_tensor*> attention_before(const ggml_tensor* op) {
  std::unordered_set<const ggml_tensor*> seen = {op};
  std::unordered_set<const ggml_tensor*> attention;
  std::vector<const ggml_tensor*> open = {op};
  while (!open.empty()) {
    const ggml_tensor* t = open.back();
    open.pop_back();
    if (t->op == GGML_OP_FLASH_ATTN_EXT) attention.insert(t);
    for (const ggml_tensor* source : t->src)
      if (source != nullptr && source->op != GGML_OP_NONE && seen.insert(source).second)
        open.push_back(source);
  }
  return attention;
}

}  // namespace

Blueprints& Blueprints::get() {
  static Blueprints blueprints;
  return blueprints;
}

void Blueprints::see(const ggml_tensor* op) {
  const std::lock_guard lock(mutex_);
  switch (op->op) {
    case GGML_OP_FLASH_ATTN_EXT:
      if (takes(op)) see_attention(op);
      break;
    case GGML_OP_SET_ROWS:
      if (is_cache(root_of(op), 'k')) see_write(op);
      break;
    case GGML_OP_GET_ROWS:
      see_outputs(op);
      break;
    default:
      break;
  }
}

// A layer whose cells lie elsewhere than before is another model's: whatever was known of the buffer is gone.
Blueprints::Layer& Blueprints::layer_of_cells(const ggml_tensor* k) {
  auto& layers = caches_[k->buffer];
  Layer& layer = layers[layer_of(k)];
  if (layer.model.k != nullptr && (layer.model.k != k || layer.model.number != layer_of(k))) {
    layers.clear();
    return layer_of_cells(k);
  }
  layer.model.k = k;
  layer.model.number = layer_of(k);
  return layer;
}

void Blueprints::see_attention(const ggml_tensor* op) {
  const ggml_tensor* k = root_of(op->src[1]);
  if (k->buffer == nullptr) return;
  Layer& layer = layer_of_cells(k);
  layer.attends = true;
  layer.model.v = root_of(op->src[2]);
  layer.model.shape.query_heads = static_cast<std::size_t>(op->src[0]->ne[2]);
  layer.model.shape.kv_heads = static_cast<std::size_t>(op->src[1]->ne[2]);
  layer.model.shape.head_dim = static_cast<std::size_t>(op->src[1]->ne[0]);
  layer.model.shape.scale = float_parameter(op, 0);
  layer.model.shape.logit_softcap = float_parameter(op, 2);
  // A graph that asks for no rows may lie where one lay that did.
  const auto known = outputs_.find(op->src[3]);
  if (known != outputs_.end() && !known->second.attention.contains(op)) outputs_.erase(known);
}

void Blueprints::see_write(const ggml_tensor* op) {
  const ggml_tensor* k = root_of(op);
  if (k->buffer == nullptr) return;
  Layer& layer = layer_of_cells(k);
  layer.model.rope = rope_of_write(op, layer.model.rope);
}

void Blueprints::see_outputs(const ggml_tensor* op) {
  const ggml_tensor* rows = op->src[1];
  if (rows == nullptr || rows->type != GGML_TYPE_I32 || std::strcmp(rows->name, kOutputs) != 0) return;
  const auto attention = attention_before(op);
  for (const ggml_tensor* layer : attention)
    if (layer->src[3] != nullptr) outputs_[layer->src[3]] = {rows, attention, root_of(layer->src[1])->buffer};
}

std::vector<ModelLayer> Blueprints::layers_in(const ggml_backend_buffer* cells) const {
  const std::lock_guard lock(mutex_);
  std::vector<ModelLayer> layers;
  const auto found = caches_.find(cells);
  if (found == caches_.end()) return layers;
  for (const auto& [number, layer] : found->second)
    if (layer.attends) layers.push_back(layer.model);
  return layers;
}

const ggml_tensor* Blueprints::outputs_of(const ggml_tensor* mask) const {
  const std::lock_guard lock(mutex_);
  const auto found = outputs_.find(mask);
  return found == outputs_.end() ? nullptr : found->second.rows;
}

void Blueprints::forget(const ggml_backend_buffer* cells) {
  const std::lock_guard lock(mutex_);
  caches_.erase(cells);
  std::erase_if(outputs_, [cells](const auto& entry) { return entry.second.cells == cells; });
}

}  // namespace zeromerge::plugin
