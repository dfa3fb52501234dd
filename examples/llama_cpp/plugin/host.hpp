// One instance per llama.cpp context: runs the parts of its graphs that the plug-in has taken over.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "ggml-backend.h"
#include "ggml.h"
#include "plugin_api.h"
#include "stream.hpp"
#include "watch.hpp"

struct ggml_cgraph;

namespace zeromerge::plugin {

// Whether the plug-in answers this operation. Attention that needs more than K, V, a mask, a scale, a
// soft-cap and sinks (ALiBi, other types) is not taken: the engine's own kernels answer it, as if the plug-in
// were not there.
bool takes(const ggml_tensor* op);

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

  // All streams remember what they hold, and return to it. Throws Error if there is a stream that cannot.
  void checkpoint();
  void require_checkpoint() const;
  void rollback();

  // Adds this instance's share to the statistics.
  void count(zeromerge_statistics& statistics) const;

  // See zeromerge_get_heads; streams are counted from `first_stream` on. Returns how many there are.
  std::uint64_t visit_heads(zeromerge_head_visitor_t visit, void* context, std::uint64_t first_stream) const;

 private:
  // One layer's cache tensors and its streams.
  struct Layer {
    const ggml_tensor* k;
    const ggml_tensor* v;
    std::vector<std::unique_ptr<Stream>> streams;
  };

  // What a graph's layers share about one stream.
  struct Seen {
    std::uint64_t graph = 0;
    Sight sight;
    Watch::Past past = Watch::Past::same;
  };

  template <class Visit>
  void each_stream(const Visit& visit) const;
  void write_rows(const ggml_tensor* op);
  bool attend(ggml_tensor* op);
  const Seen& see(const ggml_tensor* k, const ggml_tensor* mask, std::size_t tokens, std::size_t s,
                  std::size_t stream, std::vector<std::size_t> written);
  void finish_together(std::size_t stream, const std::vector<std::size_t>* past);
  bool attend_stateless(ggml_cgraph* graph, int node);
  Layer& layer_of_tensors(const ggml_tensor* k, const ggml_tensor* v);

  int threads_ = 1;
  Executor executor_;
  std::shared_ptr<Workspace> workspace_;
  std::map<const void*, Layer> layers_;  // by the key tensor's data
  std::map<const void*, std::vector<std::int64_t>>
      written_;                  // rows written since the last attention, by the key tensor's data
  std::int64_t most_cells_ = 0;  // of any layer's cache
  Watch watch_;
  Watch checkpoint_watch_;  // what was known of the cells at the checkpoint
  int last_layer_ = -1;     // of the last attention; layers rise within a graph
  std::uint64_t graph_ = 1;
  std::uint64_t sights_ = 0;
  std::map<std::size_t, Seen> seen_;  // by stream, the last one
  std::map<std::size_t, std::vector<float>>
      answers_;                   // of the streams that were answered in a call where others were not
  ggml_backend_t cpu_ = nullptr;  // the engine's own kernels, for calls that no cache can answer
};

}  // namespace zeromerge::plugin
