// One instance per llama.cpp context: runs the parts of its graphs that the plug-in has taken over.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <mutex>

#include "ggml-backend.h"
#include "ggml.h"
#include "plugin_api.h"
#include "pool.hpp"

struct ggml_cgraph;

namespace zeromerge::plugin {

// Its calls come from any thread, one at a time.
class Host {
 public:
  Host();
  ~Host();
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;

  ggml_status compute(ggml_cgraph* graph);
  void set_threads(int threads);

  void finish_prompt();
  void begin_second_reading();
  void end_second_reading();

  // All sequences remember what they hold, and return to it. Throws Error if there is one that cannot.
  void checkpoint();
  void require_checkpoint() const;
  void rollback();

  // See zeromerge_trim.
  void trim(std::uint64_t idle);

  // Adds this instance's share to the statistics.
  void count(zeromerge_statistics& statistics) const;

  // See zeromerge_get_heads; sequences are counted from `first` on. Returns how many there are.
  std::uint64_t visit_heads(zeromerge_head_visitor_t visit, void* context, std::uint64_t first) const;

 private:
  void write(const ggml_tensor* op);
  bool attend(ggml_cgraph* graph, int node);
  bool attend_by_the_engine(ggml_cgraph* graph, int node);
  Pool* pool_of(const ggml_tensor* k_root);
  void each_sequence(const std::function<void(Sequence&)>& visit);

  mutable std::mutex mutex_;  // a program may ask for statistics while a graph is computed
  int threads_ = 1;
  Executor executor_;
  std::shared_ptr<Workspace> workspace_;
  std::map<const ggml_backend_buffer*, std::unique_ptr<Pool>> pools_;  // by the memory of their cells
  std::int64_t most_cells_ = 0;                                        // of any KV cache
  ggml_backend_t cpu_ = nullptr;  // the engine's own kernels, for calls that no cache can answer
};

}  // namespace zeromerge::plugin
