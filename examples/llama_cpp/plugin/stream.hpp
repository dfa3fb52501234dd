// One stream of one layer: the library's cache and its relation to the engine's cells. The engine's cells are
// the source of truth; what each call may see and what it has just written stands in its sight. From it
// follows what happened since the last call: a continuation, a rollback, an edit, a restart, or something
// that no single causal sequence explains.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cells.hpp"
#include "plugin_api.h"
#include "sight.hpp"
#include "zeromerge/cache/any_cache.hpp"

namespace zeromerge::plugin {

// The operands of one attention call, one stream of it.
struct Call {
  const ggml_tensor* q;      // f32 [dim][tokens][query heads][streams]
  const ggml_tensor* k;      // [dim][cells in view][kv heads][streams]
  const ggml_tensor* v;      // likewise
  const ggml_tensor* mask;   // f16 [cells in view][tokens][1][streams or 1]
  const ggml_tensor* sinks;  // f32 [query heads] or null
  ggml_tensor* out;          // f32 [dim][query heads][tokens][streams]
  std::size_t stream;        // in the view
  std::size_t cell_stream;   // in the cache tensors
  float scale;
  float softcap;  // 0: none

  std::size_t tokens() const { return static_cast<std::size_t>(q->ne[1]); }
  std::size_t cells() const { return static_cast<std::size_t>(k->ne[1]); }
  const std::uint16_t* mask_row(std::size_t token) const;  // f16 bits: 0 visible, -infinity hidden
};

class Stream {
 public:
  Stream(const ggml_tensor* k_root, const ggml_tensor* v_root, std::size_t stream, Executor executor,
         std::shared_ptr<Workspace> workspace);

  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // Answers the call from the cache and returns true; or returns false: the call is no plain causal
  // continuation and must be answered from the engine's cells as they are. `edited`: cells that the call sees
  // have other content than when the cache took them. prompt_ends(): called before the first single token
  // behind a prompt if this stream waits_for_others(). Throws Error if cells are needed that were given back.
  bool attend(const Call& call, const Sight& sight, bool edited, const std::function<void()>& prompt_ends);

  // Whether the last call took its past from the engine's cells.
  bool has_read_again() const { return has_read_again_; }

  // [cells] 1: its pages have been given back.
  const std::vector<char>& given_back() const { return given_back_; }

  // Compresses now instead of at the next single token; a rebuilt cache waits until it has seen queries.
  void finish_prompt();
  // The layer if its prompt is open and its budget is one for all layers together; else null.
  AnyLayer* waits_for_others() const;
  // Forgets the tokens behind `past` (cells, rising). False: its past is another one.
  bool cut_to(const std::vector<std::size_t>& past);
  // To be called after a prompt has ended by other ways than this stream's.
  void account();

  // Between the two a prompt is read again, see LayerCache::begin_second_reading. The end forgets the tokens
  // of the reading; the engine drops them too.
  void begin_second_reading();
  void end_second_reading();

  // Remembers what the stream holds and knows, in place of what it remembered before.
  void checkpoint();
  // Throws Error if there is nothing to return to.
  void require_checkpoint() const;
  // Holds again what it remembered. The engine must show that past at the next call.
  void rollback();

  // Calls visit(context, head) for each kv head, which carries `stream`; there must be a cache.
  void visit_heads(zeromerge_head_visitor_t visit, void* context, std::uint64_t stream) const;

  const AnyCache* cache() const { return cache_.get(); }
  std::size_t tokens() const { return order_.size(); }
  std::size_t engine_bytes() const { return k_pages_.resident_bytes() + v_pages_.resident_bytes(); }

 private:
  enum class Cell : std::uint8_t {
    unused,
    live,
    retired
  };  // retired: left behind by a restart, perhaps another sequence's

  // What a rollback brings back. Which pages were given back is not among it: they are gone.
  struct Checkpoint {
    std::unique_ptr<AnyCheckpoint> held;  // null: answered from the engine's cells
    std::vector<std::size_t> order;
    std::vector<Cell> state;
    std::vector<std::size_t> waiting;
    std::size_t settle;
  };

  void mark_written(const std::vector<std::size_t>& written);
  bool follow_past(const Call& call, const std::vector<std::size_t>& past, bool edited, bool follows);
  void restart(const Call& call);
  void rebuild(const Call& call, std::vector<std::size_t> past);
  bool cut(std::vector<std::size_t> left);
  void run(const Call& call, const std::vector<std::size_t>& written,
           const std::function<void()>& prompt_ends);
  void give_back(const std::vector<std::size_t>& written);
  void need(const std::vector<std::size_t>& cells, bool all = false) const;
  void go_stateless(const Call& call);
  void drop_cache();
  RowView gather(const Call& call, const ggml_tensor* operand, const std::vector<std::size_t>& cells,
                 std::vector<char>& buffer) const;

  CellPages k_pages_;
  CellPages v_pages_;
  int layer_;
  Executor executor_;
  std::shared_ptr<Workspace> workspace_;
  std::unique_ptr<AnyCache> cache_;
  std::unique_ptr<Checkpoint> checkpoint_;  // it goes with cache_, in whose count it is
  std::vector<std::size_t> order_;          // live cells in the order of their tokens
  std::vector<Cell> state_;                 // [cells]
  std::vector<char> given_back_;            // [cells]
  bool stateless_ = false;                  // until the stream restarts
  bool has_read_again_ = false;
  bool pages_swept_ = false;
  std::uint64_t last_sight_ = 0;
  bool seen_before_ = false;
  std::vector<std::size_t> waiting_;  // cells written whose pages have not been looked at yet
  std::size_t accounted_ = 0;         // bytes of cache_ in the process's count
  std::size_t read_from_ = 0;         // tokens of the prompt while it is read again, else 0
  std::size_t settle_ = 0;            // single tokens that still count as prompt, after a rebuild
};

}  // namespace zeromerge::plugin
