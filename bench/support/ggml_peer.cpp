#include "support/ggml_peer.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

namespace bench {
namespace {

std::int64_t whole(std::size_t n) { return static_cast<std::int64_t>(n); }

std::size_t memory_for(const PeerProblem& p, PeerForm form, ggml_type type, std::size_t layers) {
  const std::size_t row = ggml_row_size(type, whole(p.shape.head_dim));
  const std::size_t cache = 2 * p.entries * p.shape.kv_heads * row;
  const std::size_t out = p.tokens * p.shape.query_heads * p.shape.head_dim * sizeof(float);
  const std::size_t logits = p.tokens * p.shape.query_heads * p.entries * sizeof(float);
  const std::size_t graph = ggml_graph_overhead_custom(16, false) + 16 * ggml_tensor_overhead() + (1 << 16);
  return layers * (cache + 3 * out + (form == PeerForm::plain ? 2 * logits : 0) + graph) + 3 * out +
         p.tokens * p.entries * 4 + (1 << 20);
}

ggml_context* context_in(const HugePages& memory) {
  ggml_cpu_init();  // its tables of conversions
  ggml_context* context = ggml_init({memory.bytes(), memory.data(), false});
  if (context == nullptr) throw std::runtime_error("ggml cannot make a context");
  return context;
}

}  // namespace

ggml_type stored_like(const std::string& type) {
  return type == "q8" ? GGML_TYPE_Q8_0 : type == "q4" ? GGML_TYPE_Q4_0 : GGML_TYPE_F16;
}

void check_same(const float* ours, const std::vector<float>& theirs, const std::string& type) {
  double difference = 0.0, square = 0.0;
  for (std::size_t i = 0; i < theirs.size(); ++i) {
    const double d = static_cast<double>(ours[i]) - static_cast<double>(theirs[i]);
    difference += d * d;
    square += static_cast<double>(theirs[i]) * static_cast<double>(theirs[i]);
  }
  const double relative = std::sqrt(difference / square);
  const double most = type == "q4" ? 0.3 : type == "q8" ? 0.05 : 0.02;
  if (relative <= most) return;
  throw std::runtime_error("the library and ggml differ by " + std::to_string(relative) + " of their size (" +
                           type + ")");
}

GgmlPeer::GgmlPeer(const PeerProblem& problem, PeerForm form, ggml_type type, std::size_t layers, int threads)
    : problem_(problem),
      form_(form),
      memory_(memory_for(problem, form, type, layers)),
      context_(context_in(memory_)) {
  const Shape& s = problem.shape;
  q_ = ggml_new_tensor_3d(context_, GGML_TYPE_F32, whole(s.head_dim), whole(s.query_heads),
                          whole(problem.tokens));
  std::memcpy(q_->data, problem.q, ggml_nbytes(q_));
  // Flash attention wants f16; llama.cpp gives the other way f32.
  mask_ = ggml_new_tensor_2d(context_, form == PeerForm::plain ? GGML_TYPE_F32 : GGML_TYPE_F16,
                             whole(problem.entries), whole(problem.tokens));
  for (std::size_t t = 0; t < problem.tokens; ++t)
    for (std::size_t j = 0; j < problem.entries; ++j) {
      const float x = j <= problem.entries - problem.tokens + t ? 0.0f : -INFINITY;
      const std::size_t at = t * problem.entries + j;
      if (form == PeerForm::plain)
        static_cast<float*>(mask_->data)[at] = x;
      else
        static_cast<ggml_fp16_t*>(mask_->data)[at] = ggml_fp32_to_fp16(x);
    }
  for (std::size_t i = 0; i < layers; ++i) layers_.push_back(build(form, type));
  ggml_threadpool_params parameters = ggml_threadpool_params_default(threads);
  pool_ = ggml_threadpool_new(&parameters);
  plan_ = ggml_graph_plan(layers_[0].graph, threads, pool_);
  work_.resize(plan_.work_size);
  plan_.work_data = work_.data();
}

GgmlPeer::~GgmlPeer() {
  ggml_threadpool_free(pool_);
  ggml_free(context_);
}

// [dim, heads, entries] as llama.cpp's cache has it, or [dim, entries, heads].
// A copy of `same` unless that is null.
ggml_tensor* GgmlPeer::cache(const float* rows, ggml_type type, bool by_head, ggml_tensor* same) {
  const Shape& s = problem_.shape;
  const std::int64_t dim = whole(s.head_dim);
  ggml_tensor* to = by_head
                        ? ggml_new_tensor_3d(context_, type, dim, whole(problem_.entries), whole(s.kv_heads))
                        : ggml_new_tensor_3d(context_, type, dim, whole(s.kv_heads), whole(problem_.entries));
  if (same != nullptr) {
    std::memcpy(to->data, same->data, ggml_nbytes(to));
    return to;
  }
  for (std::size_t j = 0; j < problem_.entries; ++j)
    for (std::size_t h = 0; h < s.kv_heads; ++h) {
      char* row = static_cast<char*>(to->data) +
                  (by_head ? j * to->nb[1] + h * to->nb[2] : h * to->nb[1] + j * to->nb[2]);
      ggml_quantize_chunk(type, rows + (j * s.kv_heads + h) * s.head_dim, row, 0, 1, dim, nullptr);
    }
  return to;
}

// f16 [entries, dim, heads].
ggml_tensor* GgmlPeer::transposed_values(const float* rows, ggml_tensor* same) {
  const Shape& s = problem_.shape;
  ggml_tensor* to = ggml_new_tensor_3d(context_, GGML_TYPE_F16, whole(problem_.entries), whole(s.head_dim),
                                       whole(s.kv_heads));
  if (same != nullptr) {
    std::memcpy(to->data, same->data, ggml_nbytes(to));
    return to;
  }
  auto* data = static_cast<ggml_fp16_t*>(to->data);
  for (std::size_t j = 0; j < problem_.entries; ++j)
    for (std::size_t h = 0; h < s.kv_heads; ++h)
      for (std::size_t d = 0; d < s.head_dim; ++d)
        data[(h * s.head_dim + d) * problem_.entries + j] =
            ggml_fp32_to_fp16(rows[(j * s.kv_heads + h) * s.head_dim + d]);
  return to;
}

GgmlPeer::Layer GgmlPeer::build(PeerForm form, ggml_type type) {
  const float scale = 1.0f / std::sqrt(static_cast<float>(problem_.shape.head_dim));
  const Layer* same = layers_.empty() ? nullptr : &layers_[0];
  const bool by_head = form == PeerForm::head_major;
  const auto by_heads = [&](ggml_tensor* x) { return by_head ? x : ggml_permute(context_, x, 0, 2, 1, 3); };
  ggml_tensor* q = ggml_permute(context_, q_, 0, 2, 1, 3);
  Layer layer{};
  layer.k = cache(problem_.k, type, by_head, same != nullptr ? same->k : nullptr);
  if (form == PeerForm::plain) {
    layer.v = transposed_values(problem_.v, same != nullptr ? same->v : nullptr);
    ggml_tensor* logits = ggml_mul_mat(context_, by_heads(layer.k), q);
    ggml_prec_set_acc(logits, GGML_PREC_F32);
    ggml_tensor* weights = ggml_soft_max_ext(context_, logits, mask_, scale, 0.0f);
    layer.out = ggml_mul_mat(context_, layer.v, weights);  // [dim, tokens, heads]
  } else {
    layer.v = cache(problem_.v, type, by_head, same != nullptr ? same->v : nullptr);
    layer.out = ggml_flash_attn_ext(context_, q, by_heads(layer.k), by_heads(layer.v), mask_, scale, 0.0f,
                                    0.0f);  // [dim, heads, tokens]
    ggml_prec_set_acc(layer.out, GGML_PREC_F32);
  }
  layer.graph = ggml_new_graph_custom(context_, 16, false);
  ggml_build_forward_expand(layer.graph, layer.out);
  return layer;
}

void GgmlPeer::step() {
  last_ = next_;
  if (ggml_graph_compute(layers_[next_].graph, &plan_) != GGML_STATUS_SUCCESS)
    throw std::runtime_error("ggml cannot compute its attention");
  next_ = (next_ + 1) % layers_.size();
}

std::vector<float> GgmlPeer::output() const {
  const Shape& s = problem_.shape;
  const auto* from = static_cast<const float*>(layers_[last_].out->data);
  if (form_ != PeerForm::plain) return {from, from + problem_.tokens * s.query_heads * s.head_dim};
  std::vector<float> out(problem_.tokens * s.query_heads * s.head_dim);
  for (std::size_t h = 0; h < s.query_heads; ++h)
    for (std::size_t t = 0; t < problem_.tokens; ++t)
      std::copy_n(from + (h * problem_.tokens + t) * s.head_dim, s.head_dim,
                  out.data() + (t * s.query_heads + h) * s.head_dim);
  return out;
}

}  // namespace bench
