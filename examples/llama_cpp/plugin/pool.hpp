// One KV cache of the engine: its cells and the sequences that live in them. Reads once per graph which
// sequence each row continues, brings these sequences to the past that their rows see, and answers the rows
// layer by layer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "cell_store.hpp"
#include "parked.hpp"
#include "plugin_api.h"
#include "reasons.hpp"
#include "sequence.hpp"
#include "sight.hpp"
#include "watch.hpp"

namespace zeromerge::plugin {

class Pool {
 public:
  Pool(std::vector<ModelLayer> layers, Executor executor, std::shared_ptr<Workspace> workspace);

  // Whether this is the keys' tensor of one of its layers.
  bool has(const ggml_tensor* k_root) const { return store_.layer_of_keys(k_root) < store_.layers().size(); }

  // A graph is about to write new keys (SET_ROWS) to one of the layers, and has done so.
  void writes(const ggml_tensor* op);
  void wrote(const ggml_tensor* op);

  // Before an attention call on one of the layers. Returns why the engine's kernel has to answer rows of it
  // first; nothing: all are answered from caches. Throws Error if cells are needed that were given back, and
  // if a prompt cannot be ended.
  std::optional<Reason> begin(const ggml_tensor* op);
  // Answers the rows that caches answer.
  void answer(ggml_tensor* op);

  // ---- for the program, see plugin_api.h

  // Frees what the engine has wiped, and what has had no row in the last `idle` graphs.
  void trim(std::uint64_t idle);
  void each_sequence(const std::function<void(Sequence&)>& visit);
  void checkpoint();
  void require_checkpoint() const;
  void rollback();
  // Adds this pool's share.
  void count(zeromerge_statistics& statistics) const;
  std::uint64_t visit_heads(zeromerge_head_visitor_t visit, void* context, std::uint64_t first) const;
  // Calls follow one after another, so an idle pool needs no scratch.
  bool holds_caches() const;

 private:
  // Rows of one sequence in a graph.
  struct Part {
    Run run;
    Sequence* sequence;
    RowKind kind = RowKind::prompt;
    bool cached = false;
  };
  // Of one stream.
  struct StreamPlan {
    std::size_t in_view;  // the stream's place in the call
    std::size_t stream;
    std::vector<Part> parts;
    std::vector<std::size_t> cells;  // that it writes, by row
  };
  struct Plan {
    const ggml_tensor* mask = nullptr;  // null: the graph has not been read
    std::vector<std::int64_t> rows;     // that it writes, over all streams
    std::vector<StreamPlan> streams;
    std::optional<Reason> reason;
  };
  // What a layer has seen of a graph.
  struct LayerState {
    bool written = false;
    bool answered = false;
    std::vector<std::int64_t> rows;
  };
  using Sequences = std::vector<std::unique_ptr<Sequence>>;

  void end_graph();
  void give_back();
  void give_back(std::size_t stream, std::vector<std::size_t> cells);
  void plan(const ggml_tensor* op, const std::vector<std::int64_t>& rows);
  void plan_stream(const ggml_tensor* op, StreamPlan& plan, const std::vector<char>* outputs);
  void give_up_overwritten(const StreamPlan& plan, std::size_t view);
  bool is_worth_parking(const Sequence& sequence) const;
  void park_whole(const Sequence& sequence);
  void remember(std::size_t stream, Sequence& sequence) const;
  std::vector<std::uint64_t> known_keys(std::size_t stream, const Sequence& sequence) const;
  Shown shown(std::size_t stream, const Run& run) const;
  void give_up_wiped(std::size_t stream, std::uint64_t but);
  void prepare(StreamPlan& plan, Part& part, const std::vector<char>* outputs);
  void hold(Sequence& sequence, std::size_t stream);
  bool is_there(const Sequence& sequence, std::size_t stream) const;
  void read(Sequence& sequence, std::size_t stream);
  void require(std::size_t layer, std::size_t stream, const std::size_t* cells, std::size_t count,
               bool all) const;
  void require_visible(const ggml_tensor* op, std::size_t layer) const;
  std::unique_ptr<AnyCache> new_cache() const;

  // Which sequence a run continues, its chain brought to the run's past.
  Sequence& sequence_of(std::size_t stream, const Run& run);
  Sequence* recognise(std::size_t stream, const Run& run);
  const Sequence* find_restored(std::size_t stream, const Shown& shown, Imprint& imprint,
                                std::vector<std::size_t>& order);
  Sequence& follow(std::size_t stream, const Run& run, bool edited);
  Sequence& assemble(std::size_t stream, const Run& run, bool edited, Sequence* from, std::size_t common);
  Sequence& add(std::size_t stream);
  Sequence& fork(std::size_t stream, const Sequence& from, std::size_t tokens);
  Sequence& leave_behind(std::size_t stream, const Sequence& from, std::size_t tokens);
  Sequence* nearest(std::size_t stream, const Run& run, std::size_t& common) const;
  bool is_edited(std::size_t stream, const Run& run);
  bool is_refilled(std::size_t layer, std::size_t stream, const Run& run) const;
  void answer(ggml_tensor* op, std::size_t layer, const StreamPlan& plan, const Part& part);

  CellStore store_;
  Executor executor_;
  std::shared_ptr<Workspace> workspace_;
  bool shares_cells_ = false;                      // layers read other layers' cells
  bool swept_ = false;                             // the pages that the engine cleared have been given back
  std::vector<Sequences> sequences_;               // [streams]
  std::vector<LayerState> states_;                 // [layers]
  std::vector<std::vector<std::size_t>> fresh_;    // [streams] cells that the caches take in this graph
  std::vector<std::vector<std::size_t>> waiting_;  // [streams] took before it; their pages are still there
  Parked parked_;
  bool several_ = false;  // there have been several sequences at a time
  Plan plan_;
  Watch watch_;
  Watch checkpoint_watch_;  // what was known of the cells at the checkpoint
  std::uint64_t graph_ = 0;
  std::uint64_t next_number_ = 1;
};

}  // namespace zeromerge::plugin
