#include "host.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

#include "blueprints.hpp"
#include "ggml-backend-impl.h"
#include "ggml-impl.h"
#include "operators.hpp"
#include "settings.hpp"
#include "zeromerge/core/openmp.hpp"

namespace zeromerge::plugin {
namespace {

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

// The engine's CPU kernels run on OpenMP's threads; using the same ones means that no two sets of threads
// wait for each other while spinning.
Host::Host() : workspace_(std::make_shared<Workspace>()) {
  executor_ = [this](std::size_t count, LoopBody body) { OpenMp{threads_}(count, body); };
}

Host::~Host() {
  for (const auto& [cells, pool] : pools_) Blueprints::get().forget(cells);
  if (cpu_ != nullptr) ggml_backend_free(cpu_);
}

void Host::set_threads(int threads) {
  const std::lock_guard lock(mutex_);
  threads_ = threads < 1 ? 1 : threads;
}

ggml_status Host::compute(ggml_cgraph* graph) {
  const std::lock_guard lock(mutex_);
  for (int i = 0; i < graph->n_nodes; ++i) {
    const ggml_tensor* node = graph->nodes[i];
    if ((node->flags & GGML_TENSOR_FLAG_COMPUTE) == 0) continue;
    try {
      if (node->op == GGML_OP_SET_ROWS) {
        write(node);
      } else if (node->op == GGML_OP_FLASH_ATTN_EXT) {
        const Stopwatch watch;
        Settings::set_error({});
        if (!attend(graph, i)) return GGML_STATUS_FAILED;
      }
    } catch (const std::exception& e) {
      Settings::set_error(e.what());
      GGML_LOG_ERROR("zeromerge: %s\n", e.what());
      return GGML_STATUS_FAILED;
    }
  }
  return GGML_STATUS_SUCCESS;
}

void Host::write(const ggml_tensor* op) {
  const ggml_tensor* root = root_of(op);
  Pool* pool = is_cache(root, 'k') ? pool_of(root) : nullptr;
  if (pool != nullptr) pool->writes(op);
  write_rows(op);
  if (pool != nullptr) pool->wrote(op);
}

// Null: the cells of a sliding window, small already, whose masks forget. They are fewer than others.
Pool* Host::pool_of(const ggml_tensor* k_root) {
  if (k_root->ne[1] > most_cells_) {
    most_cells_ = k_root->ne[1];
    pools_.clear();
  }
  if (k_root->ne[1] < most_cells_) return nullptr;
  std::unique_ptr<Pool>& pool = pools_[k_root->buffer];
  if (pool != nullptr && pool->has(k_root)) return pool.get();
  pool.reset();
  std::vector<ModelLayer> layers = Blueprints::get().layers_in(k_root->buffer);
  if (layers.empty()) return nullptr;
  pool = std::make_unique<Pool>(std::move(layers), executor_, workspace_);
  return pool.get();
}

bool Host::attend(ggml_cgraph* graph, int node) {
  ggml_tensor* op = graph->nodes[node];
  const ggml_tensor* k_root = root_of(op->src[1]);
  Pool* pool = pool_of(k_root);
  const std::optional<Reason> reason =
      pool != nullptr ? pool->begin(op)
                      : std::optional(k_root->ne[1] < most_cells_ ? Reason::window : Reason::shapes);
  if (!reason.has_value()) {
    ++Settings::get().cached_calls;
  } else {
    ++Settings::get().stateless_calls;
    Settings::get().reasons.count(*reason);
    if (!attend_by_the_engine(graph, node)) return false;
  }
  if (pool != nullptr) pool->answer(op);
  return true;
}

// The engine's own kernel over the given K, V and mask, for all rows; those that a cache answers follow.
bool Host::attend_by_the_engine(ggml_cgraph* graph, int node) {
  if (cpu_ == nullptr) cpu_ = ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr);
  if (cpu_ == nullptr) {
    Settings::set_error("the engine's CPU backend cannot be started");
    return false;
  }
  ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(ggml_backend_get_device(cpu_));
  if (const auto set = reinterpret_cast<ggml_backend_set_n_threads_t>(
          ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads")))
    set(cpu_, threads_);
  ggml_cgraph part = ggml_graph_view(graph, node, node + 1);
  return ggml_backend_graph_compute(cpu_, &part) == GGML_STATUS_SUCCESS;
}

void Host::each_sequence(const std::function<void(Sequence&)>& visit) {
  for (auto& [cells, pool] : pools_)
    if (pool) pool->each_sequence(visit);
}

void Host::finish_prompt() {
  const std::lock_guard lock(mutex_);
  each_sequence([](Sequence& sequence) {
    sequence.turns.end_prompt(sequence.chain.size());
    sequence.finish_prompt();
  });
}

void Host::begin_second_reading() {
  const std::lock_guard lock(mutex_);
  each_sequence([](Sequence& sequence) { sequence.begin_second_reading(); });
}

void Host::end_second_reading() {
  const std::lock_guard lock(mutex_);
  each_sequence([](Sequence& sequence) { sequence.end_second_reading(); });
}

void Host::checkpoint() {
  const std::lock_guard lock(mutex_);
  for (auto& [cells, pool] : pools_)
    if (pool) pool->checkpoint();
}

void Host::require_checkpoint() const {
  const std::lock_guard lock(mutex_);
  for (const auto& [cells, pool] : pools_)
    if (pool) pool->require_checkpoint();
}

void Host::rollback() {
  const std::lock_guard lock(mutex_);
  for (auto& [cells, pool] : pools_)
    if (pool) pool->rollback();
}

void Host::trim(std::uint64_t idle) {
  const std::lock_guard lock(mutex_);
  bool any = false;
  for (auto& [cells, pool] : pools_) {
    if (!pool) continue;
    pool->trim(idle);
    any = any || pool->holds_caches();
  }
  if (!any) workspace_->release();
}

std::uint64_t Host::visit_heads(zeromerge_head_visitor_t visit, void* context, std::uint64_t first) const {
  const std::lock_guard lock(mutex_);
  std::uint64_t count = 0;
  for (const auto& [cells, pool] : pools_)
    if (pool) count += pool->visit_heads(visit, context, first + count);
  return count;
}

void Host::count(zeromerge_statistics& statistics) const {
  const std::lock_guard lock(mutex_);
  for (const auto& [cells, pool] : pools_)
    if (pool) pool->count(statistics);
  statistics.kv_bytes += workspace_->bytes();
  statistics.kv_bytes_peak += workspace_->bytes_peak();
}

}  // namespace zeromerge::plugin
