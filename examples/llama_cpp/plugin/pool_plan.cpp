// What a graph says, once for all layers: which sequence each row continues, and how the caches are brought
// to the past that it sees.
#include <algorithm>
#include <utility>

#include "blueprints.hpp"
#include "operators.hpp"
#include "pool.hpp"
#include "settings.hpp"
#include "zeromerge/core/errors.hpp"

namespace zeromerge::plugin {
namespace {

// By row of the call, 1: its output is asked for. Empty: not known.
std::vector<char> wanted_rows(const ggml_tensor* mask, std::size_t rows) {
  const ggml_tensor* outputs = Blueprints::get().outputs_of(mask);
  if (outputs == nullptr || (outputs->ne[0] != 0 && outputs->data == nullptr)) return {};
  std::vector<char> wanted(rows, 0);
  for (std::int64_t i = 0; i < outputs->ne[0]; ++i) {
    const std::int32_t row = static_cast<const std::int32_t*>(outputs->data)[i];
    if (row < 0 || static_cast<std::size_t>(row) >= rows) return {};
    wanted[static_cast<std::size_t>(row)] = 1;
  }
  return wanted;
}

}  // namespace

// Once the next graph begins all layers have seen the last one.
void Pool::end_graph() {
  for (StreamPlan& plan : plan_.streams)
    for (Part& part : plan.parts)
      if (part.cached) part.sequence->has_answered(part.run.rows.size());
  plan_ = {};
}

// When all layers have answered a graph, the pages go of what the graphs before it brought: layers that read
// the cells of another one come later in a graph, and one graph shows whether there are any.
void Pool::give_back() {
  for (std::size_t s = 0; s < waiting_.size(); ++s) {
    if (Settings::get().reclaim() && !shares_cells_ && !waiting_[s].empty())
      give_back(s, std::exchange(waiting_[s], {}));
    else if (!Settings::get().reclaim())
      waiting_[s].clear();
    waiting_[s].insert(waiting_[s].end(), fresh_[s].begin(), fresh_[s].end());
    fresh_[s].clear();
  }
}

// A page goes once the caches hold all of its cells. Those that a sequence may need wait, and the first few
// stay: a server that gives a conversation's slot to another one keeps what both begin with, a template's
// words at least.
void Pool::give_back(std::size_t stream, std::vector<std::size_t> cells) {
  constexpr std::size_t kBeginning = 32;
  struct Holder {
    const Sequence* sequence;
    std::size_t held;  // tokens that all layers hold
  };
  std::vector<Holder> holders;
  for (const auto& sequence : sequences_[stream]) {
    std::size_t held = sequence->cache() != nullptr ? sequence->chain.size() : 0;
    for (std::size_t l = 0; l < states_.size() && held != 0; ++l) held = std::min(held, sequence->held(l));
    holders.push_back({sequence.get(), held});
  }
  const auto waits = [&](std::size_t cell) {
    return std::any_of(holders.begin(), holders.end(), [cell](const Holder& h) {
      const Chain& chain = h.sequence->chain;
      return chain.contains(cell) && h.sequence->may_need(chain.place(cell));
    });
  };
  // Their pages go with the last of them, so only then are the layers asked.
  const auto due = std::stable_partition(cells.begin(), cells.end(), waits);
  waiting_[stream].insert(waiting_[stream].end(), cells.begin(), due);
  cells.erase(cells.begin(), due);
  store_.give_back(stream, std::move(cells), [&](std::size_t cell) {
    bool any = false;
    for (const Holder& h : holders) {
      if (!h.sequence->chain.contains(cell)) continue;
      const std::size_t place = h.sequence->chain.place(cell);
      if (place < kBeginning || place >= h.held || h.sequence->may_need(place)) return false;
      any = true;
    }
    return any;
  });
}

void Pool::plan(const ggml_tensor* op, const std::vector<std::int64_t>& rows) {
  ++graph_;
  if (Settings::get().reclaim() && !std::exchange(swept_, true)) store_.give_back_untouched();
  const auto tokens = static_cast<std::size_t>(op->src[0]->ne[1]);
  const auto streams = static_cast<std::size_t>(op->src[0]->ne[3]);
  const auto cells = static_cast<std::int64_t>(store_.cells());
  const std::size_t first = op->src[1]->view_offs / store_.layers().front().k->nb[2];
  const std::vector<char> outputs = wanted_rows(op->src[3], tokens * streams);
  Plan plan;
  plan.rows = rows;
  if (rows.size() != tokens * streams) plan.reason = Reason::shapes;
  for (std::size_t s = 0; s < streams && !plan.reason.has_value(); ++s) {
    StreamPlan stream{s, first + s, {}, {}};
    for (std::size_t t = 0; t < tokens; ++t) {
      const std::int64_t row = rows[s * tokens + t];
      if (static_cast<std::size_t>(row / cells) != first + s) plan.reason = Reason::shapes;
      stream.cells.push_back(static_cast<std::size_t>(row % cells));
      store_.wrote(first + s, stream.cells.back());
    }
    plan.streams.push_back(std::move(stream));
  }
  if (plan.reason.has_value()) plan.streams.clear();
  plan_ = std::move(plan);
  for (StreamPlan& stream : plan_.streams)
    give_up_overwritten(stream, static_cast<std::size_t>(op->src[3]->ne[0]));
  for (StreamPlan& stream : plan_.streams) {
    std::vector<char> part;
    if (!outputs.empty())
      part.assign(outputs.begin() + static_cast<std::ptrdiff_t>(stream.in_view * tokens),
                  outputs.begin() + static_cast<std::ptrdiff_t>((stream.in_view + 1) * tokens));
    plan_stream(op, stream, outputs.empty() ? nullptr : &part);
  }
  for (std::size_t s = 0; s < sequences_.size(); ++s) give_up_wiped(s, graph_);
  std::size_t alive = 0;
  for (const Sequences& all : sequences_) alive += all.size();
  several_ = several_ || alive > 1;
  plan_.mask = op->src[3];
}

void Pool::plan_stream(const ggml_tensor* op, StreamPlan& plan, const std::vector<char>* outputs) {
  const ggml_tensor* mask = op->src[3];
  const MaskRows rows{
      static_cast<const char*>(mask->data) + (mask->ne[3] > 1 ? plan.in_view : 0) * mask->nb[3], mask->nb[1],
      plan.cells.size(), static_cast<std::size_t>(mask->ne[0])};
  Sight sight = read_sight(rows, plan.cells);
  if (!sight.others.empty()) plan_.reason = sight.reason;
  for (Run& run : sight.runs) {
    Sequence& sequence = sequence_of(plan.stream, run);
    sequence.graph = graph_;
    plan.parts.push_back({std::move(run), &sequence});
  }
  for (Part& part : plan.parts) prepare(plan, part, outputs);
}

// A cell that is written again has lost its old content: the sequences that had it end before it, and with
// them those of whose cells nothing is left. So do those whose cells the engine no longer shows.
void Pool::give_up_overwritten(const StreamPlan& plan, std::size_t view) {
  for (auto& sequence : sequences_[plan.stream]) {
    Chain& chain = sequence->chain;
    std::size_t left = view < store_.cells() ? chain.first_from(view) : chain.size();
    for (const std::size_t cell : plan.cells) {
      if (!chain.contains(cell)) continue;
      if (!sequence->windowed) {
        left = std::min(left, chain.place(cell));
        continue;
      }
      Chain rest(store_.cells());
      for (const std::size_t other : chain.order())
        if (other != cell) rest.append(other);
      chain = std::move(rest);
      left = std::min(left, chain.size());
    }
    if (left == chain.size()) continue;
    const bool kept = is_worth_parking(*sequence);
    if (kept) remember(plan.stream, *sequence);
    if (kept && (left == 0 || !sequence->can_go_back_to(left))) {
      parked_.park(std::move(sequence));
      continue;
    }
    if (kept && left < chain.size() / 2) park_whole(*sequence);
    sequence->cut(left);
  }
  std::erase_if(sequences_[plan.stream], [](const auto& s) { return s == nullptr || s->chain.size() == 0; });
}

// With reclaiming on, the engine can restore nothing but zeros, so only its cache knows a sequence. Otherwise
// a program that has had one sequence at a time has no use for an old one, and what has lost nothing can be
// read again. But a server with several saves those that are idle and restores them, and what it is to answer
// must not depend on that.
bool Pool::is_worth_parking(const Sequence& sequence) const {
  if (Settings::get().reclaim()) return sequence.cache() != nullptr;
  return several_ && sequence.is_compressed() && sequence.has_dropped();
}

// What goes on from a small part of a sequence is another one, which has taken its place: the engine may have
// saved the whole.
void Pool::park_whole(const Sequence& sequence) {
  const Imprint& imprint = *sequence.imprint();
  auto whole = sequence.resume(store_.cells(), next_number_++, imprint, imprint.order);
  whole->remember(imprint.keys);
  if (whole->cache() != nullptr) parked_.park(std::move(whole));
}

void Pool::remember(std::size_t stream, Sequence& sequence) const {
  if (sequence.imprint() == nullptr) sequence.remember(known_keys(stream, sequence));
}

std::vector<std::uint64_t> Pool::known_keys(std::size_t stream, const Sequence& sequence) const {
  std::vector<std::uint64_t> keys;
  for (const std::size_t cell : sequence.chain.order()) keys.push_back(watch_.known(stream, cell));
  return keys;
}

// Sequences whose newest key the engine has wiped, except those with rows in the graph `but`.
void Pool::give_up_wiped(std::size_t stream, std::uint64_t but) {
  const std::size_t layer = store_.layer_of_data(watch_.data());
  if (layer == states_.size()) return;
  std::erase_if(sequences_[stream], [&](const auto& s) {
    if (s->graph == but || s->chain.size() == 0) return false;
    const std::size_t newest = s->chain.order().back();
    return watch_.knows(stream, newest) && store_.wiped(layer, stream, newest);
  });
}

void Pool::prepare(StreamPlan& plan, Part& part, const std::vector<char>* outputs) {
  Sequence& sequence = *part.sequence;
  const std::size_t before = sequence.chain.size();
  sequence.windowed = sequence.windowed || part.run.kind == Run::Kind::window;
  std::vector<char> wanted;
  for (const std::size_t row : part.run.rows)
    if (outputs != nullptr) wanted.push_back((*outputs)[row]);
  if (sequence.windowed) {
    sequence.drop();
    plan_.reason = Reason::window;
  } else {
    part.kind = sequence.next(before, part.run.rows.size(), outputs != nullptr ? &wanted : nullptr);
    // The engine answers a block as long as it has what that sees.
    const bool block = part.run.kind == Run::Kind::block;
    part.cached = !block || !is_there(sequence, plan.stream);
    if (part.cached)
      hold(sequence, plan.stream);
    else
      plan_.reason = Reason::non_causal;
    if (block && part.cached) sequence.has_read(part.run.rows.size(), false);
    if (!block && part.kind == RowKind::decoded) sequence.finish_prompt();
    if (part.cached && part.kind == RowKind::prompt) sequence.begin_turn();
  }
  sequence.append(part.run.cells, part.cached);
  fresh_[plan.stream].insert(fresh_[plan.stream].end(), part.run.cells.begin(), part.run.cells.end());
}

// Brings all layers to the sequence's chain: those ahead of it go back, those behind it read on. A cache that
// cannot go back is made anew and reads all. So is one that has read its past a moment ago and is to go back
// there: the same state gives the same answers.
void Pool::hold(Sequence& sequence, std::size_t stream) {
  const std::vector<std::size_t>& order = sequence.chain.order();
  const std::size_t layers = states_.size();
  AnyCache* source = sequence.way_back_to(sequence.agreed());
  bool anew = source == nullptr;
  anew = anew || (sequence.goes_back_to_what_it_read() && is_there(sequence, stream));
  std::size_t most = 0;
  for (std::size_t l = 0; l < layers; ++l) {
    const std::size_t from = anew ? 0 : std::min(source->layer(l).tokens(), sequence.agreed());
    most = std::max(most, order.size() - from);
    if (from < order.size()) require(l, stream, &order[from], order.size() - from, anew);
  }
  if (anew)
    sequence.start(new_cache());
  else
    sequence.go_back();
  if (most != 0) read(sequence, stream);
  sequence.has_read(most, anew);
  if (anew && most != 0) Settings::get().rebuilds += layers;
}

// Whether the engine still has the content of all of its cells.
bool Pool::is_there(const Sequence& sequence, std::size_t stream) const {
  const std::vector<std::size_t>& order = sequence.chain.order();
  for (std::size_t l = 0; l < states_.size(); ++l)
    if (store_.missing(l, stream, order.data(), order.size(), true) != 0) return false;
  return true;
}

// All layers take those tokens of the chain that they lack.
void Pool::read(Sequence& sequence, std::size_t stream) {
  const std::vector<std::size_t>& order = sequence.chain.order();
  std::vector<char> keys, values;
  for (std::size_t l = 0; l < states_.size(); ++l) {
    const std::size_t from = sequence.held(l);
    if (from == order.size()) continue;
    const std::size_t count = order.size() - from;
    sequence.read(l, store_.keys(l, stream, &order[from], count, keys),
                  store_.values(l, stream, &order[from], count, values));
    store_.take_filled(l, stream, &order[from], count);
    if (l == 0) fresh_[stream].insert(fresh_[stream].end(), &order[from], &order[from] + count);
  }
  const std::size_t watched = store_.layer_of_data(watch_.data());
  if (watched != states_.size()) watch_.accept(stream, order, store_.gone(watched, stream));
}

}  // namespace zeromerge::plugin
