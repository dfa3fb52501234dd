#include "pool.hpp"

#include <algorithm>
#include <utility>

#include "caches.hpp"
#include "operators.hpp"
#include "settings.hpp"
#include "zeromerge/core/errors.hpp"

namespace zeromerge::plugin {
namespace {

std::size_t tokens_of(const ggml_tensor* op) { return static_cast<std::size_t>(op->src[0]->ne[1]); }

// The part of a call's result that belongs to one stream.
OutView results(ggml_tensor* op, std::size_t stream) {
  OutView out;
  out.data = reinterpret_cast<float*>(static_cast<char*>(op->data) + stream * op->nb[3]);
  out.tokens = static_cast<std::size_t>(op->ne[2]);
  out.heads = static_cast<std::size_t>(op->ne[1]);
  out.head_dim = static_cast<std::size_t>(op->ne[0]);
  out.token_stride = static_cast<std::ptrdiff_t>(op->nb[2]);
  out.head_stride = static_cast<std::ptrdiff_t>(op->nb[1]);
  return out;
}

// answer(queries, results) of these rows of a stream: in place where they follow one another, else by way of
// copies.
template <class Answer>
void each_answer(ggml_tensor* op, std::size_t stream, const std::vector<std::size_t>& rows,
                 const Answer& answer) {
  OutView out = results(op, stream);
  if (rows.back() - rows.front() + 1 == rows.size()) {
    out.data = out.row(rows.front(), 0);
    out.tokens = rows.size();
    return answer(operand_rows(op->src[0], stream, rows.front(), rows.size()), out);
  }
  const std::size_t dim = out.head_dim;
  std::vector<float> queries(rows.size() * out.heads * dim), answers(queries.size());
  const OutView copied = out_rows(queries.data(), rows.size(), out.heads, dim);
  const OutView answered = out_rows(answers.data(), rows.size(), out.heads, dim);
  for (std::size_t i = 0; i < rows.size(); ++i)
    for (std::size_t h = 0; h < out.heads; ++h)
      std::copy_n(static_cast<const float*>(operand_rows(op->src[0], stream, rows[i], 1).row(0, h)), dim,
                  copied.row(i, h));
  answer(zeromerge::rows(queries.data(), rows.size(), out.heads, dim), answered);
  for (std::size_t i = 0; i < rows.size(); ++i)
    for (std::size_t h = 0; h < out.heads; ++h) std::copy_n(answered.row(i, h), dim, out.row(rows[i], h));
}

}  // namespace

Pool::Pool(std::vector<ModelLayer> layers, Executor executor, std::shared_ptr<Workspace> workspace)
    : store_(std::move(layers)),
      executor_(std::move(executor)),
      workspace_(std::move(workspace)),
      sequences_(store_.streams()),
      states_(store_.layers().size()),
      fresh_(store_.streams()),
      waiting_(store_.streams()) {}

std::unique_ptr<AnyCache> Pool::new_cache() const {
  Geometry g;
  g.layers = store_.layers().size();
  CacheOptions options;
  for (const ModelLayer& layer : store_.layers()) {
    g.shapes.push_back(layer.shape);
    options.ropes.push_back(layer.rope);
  }
  options.executor = executor_;
  options.workspace = workspace_;
  options.first_layer = static_cast<std::size_t>(std::max(store_.layers().front().number, 0));
  return plugin::new_cache(Settings::get().policy(), g, std::move(options));
}

// A layer writes its keys once in a graph: a second write belongs to the next one.
void Pool::writes(const ggml_tensor* op) {
  LayerState& state = states_[store_.layer_of_keys(root_of(op))];
  if (state.written) {
    for (LayerState& each : states_) each.written = each.answered = false;
    end_graph();
  }
  state.written = true;
  state.rows.clear();
  for (std::int64_t t = 0; t < op->src[0]->ne[1]; ++t) state.rows.push_back(row_index(op->src[1], t));
}

void Pool::wrote(const ggml_tensor* op) {
  const ggml_tensor* root = root_of(op);
  for (const std::int64_t row : states_[store_.layer_of_keys(root)].rows)
    watch_.wrote(root, static_cast<std::size_t>(row));
}

std::optional<Reason> Pool::begin(const ggml_tensor* op) {
  const std::size_t layer = store_.layer_of_keys(root_of(op->src[1]));
  std::optional<Reason> reason;
  if (layer == states_.size()) {
    reason = Reason::shapes;
  } else if (states_[layer].answered || !states_[layer].written) {
    shares_cells_ = true;
    reason = Reason::shared_cells;
  } else {
    states_[layer].answered = true;
    if (plan_.mask == nullptr) plan(op, states_[layer].rows);
    reason = plan_.mask == op->src[3] && plan_.rows == states_[layer].rows ? plan_.reason : Reason::shapes;
  }
  if (reason.has_value() && layer != states_.size()) require_visible(op, layer);
  return reason;
}

void Pool::answer(ggml_tensor* op) {
  const std::size_t layer = store_.layer_of_keys(root_of(op->src[1]));
  if (layer == states_.size() || plan_.mask != op->src[3] || plan_.rows != states_[layer].rows) return;
  for (const StreamPlan& plan : plan_.streams)
    for (const Part& part : plan.parts)
      if (part.cached) answer(op, layer, plan, part);
  if (layer + 1 == states_.size()) give_back();
}

void Pool::answer(ggml_tensor* op, std::size_t layer, const StreamPlan& plan, const Part& part) {
  std::vector<char> keys, values;
  const std::vector<std::size_t>& cells = part.run.cells;
  const RowView k = store_.keys(layer, plan.stream, cells.data(), cells.size(), keys);
  const RowView v = store_.values(layer, plan.stream, cells.data(), cells.size(), values);
  if (const ggml_tensor* sinks = op->src[4]; sinks != nullptr)
    part.sequence->cache()->layer(layer).set_sink_logits(
        {static_cast<const float*>(sinks->data), static_cast<std::size_t>(sinks->ne[0])});
  each_answer(op, plan.in_view, part.run.rows, [&](const RowView& q, const OutView& out) {
    if (part.run.kind == Run::Kind::block)
      part.sequence->answer_block(layer, q, k, v, out);
    else
      part.sequence->answer(layer, part.kind, q, k, v, out);
  });
}

// The engine's kernel reads what the rows see; a cell that was given back reads as zeros.
void Pool::require_visible(const ggml_tensor* op, std::size_t layer) const {
  const ggml_tensor* mask = op->src[3];
  const auto cells = static_cast<std::size_t>(mask->ne[0]);
  const auto first = static_cast<std::size_t>(op->src[1]->view_offs / store_.layers()[layer].k->nb[2]);
  for (std::size_t s = 0; s < static_cast<std::size_t>(op->src[0]->ne[3]); ++s) {
    const std::vector<char>& gone = store_.gone(layer, first + s);
    if (std::none_of(gone.begin(), gone.end(), [](char x) { return x != 0; })) continue;
    std::vector<char> of_caches(tokens_of(op), 0);
    for (const StreamPlan& plan : plan_.streams)
      if (plan_.mask == mask && plan.in_view == s && !shares_cells_)
        for (const Part& part : plan.parts)
          for (const std::size_t row : part.run.rows) of_caches[row] = part.cached ? 1 : 0;
    std::vector<std::size_t> seen;
    const char* data = static_cast<const char*>(mask->data) + (mask->ne[3] > 1 ? s : 0) * mask->nb[3];
    for (std::size_t cell = 0; cell < cells; ++cell) {
      bool visible = false;
      for (std::size_t t = 0; t < of_caches.size() && !visible && gone[cell] != 0; ++t)
        visible = of_caches[t] == 0 &&
                  reinterpret_cast<const std::uint16_t*>(data + t * mask->nb[1])[cell] != kHidden;
      if (visible) seen.push_back(cell);
    }
    require(layer, first + s, seen.data(), seen.size(), false);
  }
}

// That these cells have content.
void Pool::require(std::size_t layer, std::size_t stream, const std::size_t* cells, std::size_t count,
                   bool all) const {
  const std::size_t missing = store_.missing(layer, stream, cells, count, all);
  if (missing == 0) return;
  ++Settings::get().refusals;
  fail("layer ", store_.layers()[layer].number, ": the past was edited or is shared, and ", missing,
       " of the ", count,
       " cells it needs were given back to the system; start the sequence anew, give the policy a larger "
       "rollback=, or run without ZEROMERGE_RECLAIM");
}

// ---- for the program

void Pool::each_sequence(const std::function<void(Sequence&)>& visit) {
  for (Sequences& all : sequences_)
    for (auto& sequence : all) visit(*sequence);
}

void Pool::trim(std::uint64_t idle) {
  plan_ = {};
  parked_.clear();
  for (std::size_t stream = 0; stream < sequences_.size(); ++stream) {
    give_up_wiped(stream, graph_ + 1);
    std::erase_if(sequences_[stream], [&](const auto& s) { return graph_ - s->graph >= idle; });
  }
}

bool Pool::holds_caches() const {
  if (!parked_.empty()) return true;
  for (const Sequences& all : sequences_)
    for (const auto& sequence : all)
      if (sequence->cache() != nullptr) return true;
  return false;
}

void Pool::checkpoint() {
  each_sequence([](Sequence& sequence) { sequence.checkpoint(); });
  checkpoint_watch_ = watch_;
}

void Pool::require_checkpoint() const {
  for (const Sequences& all : sequences_)
    for (const auto& sequence : all)
      if (sequence->cache() == nullptr || !sequence->has_checkpoint())
        fail(
            "a sequence has no checkpoint to go back to; none was taken, or since then the sequence was "
            "started anew, or its past was edited");
}

// What was known of the cells returns too: if the engine has written to those that the checkpoint stands for,
// it shows at the next call.
void Pool::rollback() {
  plan_ = {};
  each_sequence([](Sequence& sequence) { sequence.rollback(); });
  watch_ = checkpoint_watch_;
}

void Pool::count(zeromerge_statistics& statistics) const {
  statistics.engine_bytes += store_.resident_bytes();
  statistics.kv_bytes += parked_.bytes();
  const std::size_t layers = store_.layers().size();
  for (const Sequences& all : sequences_)
    for (const auto& sequence : all) {
      AnyCache* cache = sequence->cache();
      if (cache == nullptr) continue;
      statistics.caches += layers;
      statistics.kv_bytes += sequence->bytes();
      statistics.tokens += sequence->chain.size() * layers;
      for (std::size_t l = 0; l < layers; ++l)
        for (std::size_t h = 0; h < cache->geometry().shape(l).kv_heads; ++h)
          statistics.entries += cache->layer(l).entries(h);
    }
}

std::uint64_t Pool::visit_heads(zeromerge_head_visitor_t visit, void* context, std::uint64_t first) const {
  std::uint64_t number = first;
  std::vector<std::uint64_t> positions;
  for (const Sequences& all : sequences_)
    for (const auto& sequence : all) {
      AnyCache* cache = sequence->cache();
      if (cache == nullptr) continue;
      zeromerge_head head{};
      head.stream = number++;
      head.tokens = sequence->chain.size();
      for (std::size_t l = 0; l < store_.layers().size(); ++l)
        for (head.head = 0; head.head < cache->geometry().shape(l).kv_heads; ++head.head) {
          const AnyLayer& layer = cache->layer(l);
          positions.resize(layer.entries(head.head));
          for (std::size_t slot = 0; slot < positions.size(); ++slot)
            positions[slot] = layer.position(head.head, slot);
          head.layer = static_cast<std::uint64_t>(std::max(store_.layers()[l].number, 0));
          head.entries = positions.size();
          head.positions = positions.data();
          visit(context, &head);
        }
    }
  return number - first;
}

}  // namespace zeromerge::plugin
