#include "host.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

#include "ggml-backend-impl.h"
#include "ggml-impl.h"
#include "settings.hpp"
#include "zeromerge/core/openmp.hpp"
#include "zeromerge/kernels/kernels.hpp"

namespace zeromerge::plugin {

namespace {

float float_parameter(const ggml_tensor* op, int index) {
  float x = 0.0f;
  std::memcpy(&x, reinterpret_cast<const char*>(op->op_params) + index * 4, sizeof x);
  return x;
}

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

std::int64_t row_index(const ggml_tensor* index, std::int64_t i) {
  const char* p = static_cast<const char*>(index->data) + static_cast<std::size_t>(i) * index->nb[0];
  if (index->type == GGML_TYPE_I32) return *reinterpret_cast<const std::int32_t*>(p);
  return *reinterpret_cast<const std::int64_t*>(p);
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

// A stream's part of the output of attention, which is contiguous.
float* stream_of(const ggml_tensor* out, std::size_t stream) {
  return reinterpret_cast<float*>(static_cast<char*>(out->data) + stream * out->nb[3]);
}

class Stopwatch {
 public:
  ~Stopwatch() {
    const auto spent = std::chrono::steady_clock::now() - start_;
    Settings::get().attention_nanoseconds +=
        static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(spent).count());
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

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

// The engine's CPU kernels run on OpenMP's threads; using the same ones means that no two sets of threads
// wait for each other while spinning.
Host::Host() : workspace_(std::make_shared<Workspace>()) {
  executor_ = [this](std::size_t count, LoopBody body) { OpenMp{threads_}(count, body); };
}

Host::~Host() {
  if (cpu_ != nullptr) ggml_backend_free(cpu_);
}

void Host::set_threads(int threads) { threads_ = threads < 1 ? 1 : threads; }

ggml_status Host::compute(ggml_cgraph* graph) {
  for (int i = 0; i < graph->n_nodes; ++i) {
    ggml_tensor* node = graph->nodes[i];
    if ((node->flags & GGML_TENSOR_FLAG_COMPUTE) == 0) continue;
    try {
      if (node->op == GGML_OP_SET_ROWS) {
        write_rows(node);
      } else if (node->op == GGML_OP_FLASH_ATTN_EXT) {
        const Stopwatch watch;
        Settings::get().set_error({});
        if (!attend(node) && !attend_stateless(graph, i)) return GGML_STATUS_FAILED;
      }
    } catch (const std::exception& e) {
      Settings::get().set_error(e.what());
      GGML_LOG_ERROR("zeromerge: %s\n", e.what());
      return GGML_STATUS_FAILED;
    }
  }
  return GGML_STATUS_SUCCESS;
}

void Host::write_rows(const ggml_tensor* op) {
  const ggml_tensor* from = op->src[0];
  const ggml_tensor* index = op->src[1];
  const bool keys = is_cache(root_of(op), 'k');
  std::vector<std::int64_t>& written = written_[root_of(op)->data];
  written.clear();
  for (std::int64_t t = 0; t < from->ne[1]; ++t) {
    const std::int64_t row = row_index(index, t);
    if (row < 0 || row >= op->ne[1]) fail("write to row ", row, " of a cache tensor of ", op->ne[1], " rows");
    narrow_row(reinterpret_cast<const float*>(static_cast<const char*>(from->data) +
                                              static_cast<std::size_t>(t) * from->nb[1]),
               static_cast<std::size_t>(op->ne[0]), op->type,
               static_cast<char*>(op->data) + static_cast<std::size_t>(row) * op->nb[1]);
    if (!keys) continue;
    written.push_back(row);
    watch_.wrote(root_of(op), static_cast<std::size_t>(row));
  }
}

Host::Layer& Host::layer_of_tensors(const ggml_tensor* k, const ggml_tensor* v) {
  Layer& layer = layers_[k->data];
  layer.k = k;
  layer.v = v;
  layer.streams.resize(static_cast<std::size_t>(k->ne[2]));
  return layer;
}

// What the call sees, and whether the engine has changed its cells. Both are the same for all layers of a
// graph, and only the deepest layer's keys can tell of a change: what the first layer finds is kept for the
// others.
const Host::Seen& Host::see(const ggml_tensor* k, const ggml_tensor* mask, std::size_t tokens, std::size_t s,
                            std::size_t stream, std::vector<std::size_t> written) {
  Seen& seen = seen_[stream];
  if (seen.graph == graph_ && seen.sight.mask == mask && seen.sight.written == written) return seen;
  Sight sight = read_sight(mask, s, tokens, std::move(written));
  sight.number = ++sights_;
  sight.follows = continues(seen.sight, sight) ? seen.sight.number : 0;
  seen = {graph_, std::move(sight), Watch::Past::same};
  const auto layer = layers_.find(watch_.data());
  if (!seen.sight.causal || layer == layers_.end() || layer->second.k->ne[1] != k->ne[1]) return seen;
  const Stream* watched = layer->second.streams[stream].get();
  if (watched != nullptr) seen.past = watch_.look(stream, seen.sight.past, watched->given_back());
  return seen;
}

// True if every stream of the call was answered from its cache. All streams see the call, so that each keeps
// track.
bool Host::attend(ggml_tensor* op) {
  const ggml_tensor* k = root_of(op->src[1]);
  const ggml_tensor* v = root_of(op->src[2]);
  Layer& layer = layer_of_tensors(k, v);
  answers_.clear();
  // Fewer cells than other layers have: a cache for a sliding window, small already, and its mask forgets.
  most_cells_ = std::max(most_cells_, k->ne[1]);
  if (k->ne[1] < most_cells_) {
    for (auto& stream : layer.streams) stream.reset();
    return false;
  }
  const std::vector<std::int64_t> rows = std::exchange(written_[k->data], {});
  const std::size_t first = k->nb[2] != 0 ? op->src[1]->view_offs / k->nb[2] : 0;
  if (layer_of(k) <= std::exchange(last_layer_, layer_of(k))) ++graph_;
  const auto streams = static_cast<std::size_t>(op->src[0]->ne[3]);
  std::vector<std::size_t> answered;
  for (std::size_t s = 0; s < streams; ++s) {
    const std::size_t stream = first + s;
    std::vector<std::size_t> written;
    for (const std::int64_t row : rows)
      if (static_cast<std::size_t>(row / k->ne[1]) == stream)
        written.push_back(static_cast<std::size_t>(row % k->ne[1]));
    auto& cache = layer.streams[stream];
    if (!cache) cache = std::make_unique<Stream>(k, v, stream, executor_, workspace_);
    const Call call{op->src[0],
                    op->src[1],
                    op->src[2],
                    op->src[3],
                    op->src[4],
                    op,
                    s,
                    stream,
                    float_parameter(op, 0),
                    float_parameter(op, 2)};
    const Seen& seen = see(k, op->src[3], call.tokens(), s, stream, std::move(written));
    const auto prompt_ends = [&] { finish_together(stream, &seen.sight.past); };
    if (cache->attend(call, seen.sight, seen.past == Watch::Past::edited, prompt_ends)) answered.push_back(s);
    if (watch_.watches(k) && (seen.past != Watch::Past::same || cache->has_read_again()))
      watch_.accept(stream, seen.sight.past, cache->given_back());
  }
  if (answered.size() == streams) {
    ++Settings::get().cached_calls;
    return true;
  }
  // The engine's kernel computes all streams, and of these it may not have the cells.
  for (const std::size_t s : answered) {
    const float* out = stream_of(op, s);
    answers_[s].assign(out, out + op->ne[0] * op->ne[1] * op->ne[2]);
  }
  return false;
}

// The engine's own kernel over the given K, V and mask.
bool Host::attend_stateless(ggml_cgraph* graph, int node) {
  ++Settings::get().stateless_calls;
  if (cpu_ == nullptr) cpu_ = ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr);
  if (cpu_ == nullptr) {
    Settings::get().set_error("the engine's CPU backend cannot be started");
    return false;
  }
  ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(ggml_backend_get_device(cpu_));
  if (const auto set = reinterpret_cast<ggml_backend_set_n_threads_t>(
          ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads")))
    set(cpu_, threads_);
  ggml_cgraph part = ggml_graph_view(graph, node, node + 1);
  if (ggml_backend_graph_compute(cpu_, &part) != GGML_STATUS_SUCCESS) return false;
  for (const auto& [s, answer] : answers_)
    std::copy(answer.begin(), answer.end(), stream_of(graph->nodes[node], s));
  answers_.clear();
  return true;
}

template <class Visit>
void Host::each_stream(const Visit& visit) const {
  for (const auto& [data, layer] : layers_)
    for (const auto& stream : layer.streams)
      if (stream) visit(*stream);
}

// A stream's layers whose budget is one for all of them end their prompts at once: when the first of them
// gets a single token, all have seen the whole prompt. That token's past, if it is cut back from what they
// know, is theirs as well.
void Host::finish_together(std::size_t stream, const std::vector<std::size_t>* past) {
  std::vector<std::pair<int, Stream*>> streams;
  for (auto& [data, layer] : layers_) {
    Stream* s = stream < layer.streams.size() ? layer.streams[stream].get() : nullptr;
    if (s != nullptr && s->waits_for_others() != nullptr && (past == nullptr || s->cut_to(*past)))
      streams.emplace_back(layer_of(layer.k), s);
  }
  std::sort(streams.begin(), streams.end());
  std::vector<AnyLayer*> layers;
  for (const auto& [number, s] : streams) layers.push_back(s->waits_for_others());
  zeromerge::finish_together(std::span<AnyLayer* const>(layers));
  for (const auto& [number, s] : streams) s->account();
}

void Host::finish_prompt() {
  std::size_t most = 0;
  for (const auto& [data, layer] : layers_) most = std::max(most, layer.streams.size());
  for (std::size_t stream = 0; stream < most; ++stream) finish_together(stream, nullptr);
  each_stream([](Stream& stream) { stream.finish_prompt(); });
}

void Host::begin_second_reading() {
  each_stream([](Stream& stream) { stream.begin_second_reading(); });
}

void Host::end_second_reading() {
  each_stream([](Stream& stream) { stream.end_second_reading(); });
}

void Host::checkpoint() {
  each_stream([](Stream& stream) { stream.checkpoint(); });
  checkpoint_watch_ = watch_;
}

void Host::require_checkpoint() const {
  each_stream([](const Stream& stream) { stream.require_checkpoint(); });
}

// What was known of the cells returns too: if the engine has written to those that the checkpoint stands for,
// it shows at the next call.
void Host::rollback() {
  each_stream([](Stream& stream) { stream.rollback(); });
  watch_ = checkpoint_watch_;
}

std::uint64_t Host::visit_heads(zeromerge_head_visitor_t visit, void* context,
                                std::uint64_t first_stream) const {
  std::map<std::pair<std::size_t, int>, const Stream*> streams;  // by number and layer
  std::size_t count = 0;
  for (const auto& [data, layer] : layers_) {
    count = std::max(count, layer.streams.size());
    for (std::size_t s = 0; s < layer.streams.size(); ++s)
      if (layer.streams[s] && layer.streams[s]->cache() != nullptr)
        streams[{s, layer_of(layer.k)}] = layer.streams[s].get();
  }
  for (const auto& [key, stream] : streams) stream->visit_heads(visit, context, first_stream + key.first);
  return count;
}

void Host::count(zeromerge_statistics& statistics) const {
  for (const auto& [data, layer] : layers_)
    for (const auto& stream : layer.streams) {
      if (!stream) continue;
      statistics.engine_bytes += stream->engine_bytes();
      const AnyCache* cache = stream->cache();
      if (cache == nullptr) continue;
      ++statistics.caches;
      statistics.kv_bytes += cache->bytes().held;
      statistics.tokens += stream->tokens();
      for (std::size_t h = 0; h < cache->geometry().kv_heads; ++h)
        statistics.entries += const_cast<AnyCache*>(cache)->layer(0).entries(h);
    }
  statistics.kv_bytes += workspace_->bytes();
  statistics.kv_bytes_peak += workspace_->bytes_peak();
}

}  // namespace zeromerge::plugin
