// Which sequence a row continues, and where there is none that it does: whether one was taken back, forked,
// restored or moved.
#include <algorithm>

#include "pool.hpp"
#include "settings.hpp"

namespace zeromerge::plugin {
namespace {

std::vector<std::size_t> cells_in(Cells past) {
  std::vector<std::size_t> cells;
  for (std::size_t cell = 0; cell < past.size(); ++cell)
    if (past[cell] == kVisible) cells.push_back(cell);
  return cells;
}

}  // namespace

Sequence& Pool::add(std::size_t stream) {
  sequences_[stream].push_back(std::make_unique<Sequence>(store_.cells(), next_number_++));
  return *sequences_[stream].back();
}

Sequence& Pool::fork(std::size_t stream, const Sequence& from, std::size_t tokens) {
  sequences_[stream].push_back(from.fork(store_.cells(), next_number_++, tokens));
  return *sequences_[stream].back();
}

// The engine may have taken back the rest of `from`, or another sequence may still have it: that does not
// show. So it stays. Where this happens again and again, as with drafts, the one that stayed last time and
// has had no row since is over.
Sequence& Pool::leave_behind(std::size_t stream, const Sequence& from, std::size_t tokens) {
  const std::uint64_t last = from.left_behind;
  const std::uint64_t since = from.left_at;
  Sequence& copy = fork(stream, from, tokens);
  copy.left_behind = from.number();
  copy.left_at = graph_;
  std::erase_if(sequences_[stream], [&](const auto& s) { return s->number() == last && s->graph < since; });
  return copy;
}

Sequence& Pool::sequence_of(std::size_t stream, const Run& run) {
  if (run.tokens == 0) return add(stream);
  const bool edited = is_edited(stream, run);
  if (Sequence* known = edited ? recognise(stream, run) : nullptr; known != nullptr) return *known;
  Sequence* exact = nullptr;
  for (auto& sequence : sequences_[stream]) {
    if (sequence->windowed && sequence->graph != graph_ && sequence->chain.covers(run.past)) return *sequence;
    if (!sequence->chain.is(run.past)) continue;
    if (sequence->graph != graph_) return *sequence;
    exact = sequence.get();
  }
  if (exact != nullptr) return fork(stream, *exact, run.tokens);
  std::size_t common = 0;
  if (!edited && nearest(stream, run, common) != nullptr && common == run.tokens)
    return follow(stream, run, edited);
  if (Sequence* known = edited ? nullptr : recognise(stream, run); known != nullptr) return *known;
  return follow(stream, run, edited);
}

Shown Pool::shown(std::size_t stream, const Run& run) const {
  constexpr std::size_t kBehind = 256;
  Shown shown;
  shown.cells = cells_in(run.past);
  for (const std::size_t cell : shown.cells) shown.keys.push_back(watch_.present(stream, cell));
  const std::size_t end = std::min(store_.cells(), shown.cells.back() + 1 + kBehind);
  for (std::size_t cell = shown.cells.back() + 1; cell < end; ++cell)
    shown.behind.push_back(watch_.present(stream, cell));
  return shown;
}

// A state that the engine has saved and restores is that of a sequence which is, or was, elsewhere. With
// reclaiming on it has no content but that of its newest cells.
Sequence* Pool::recognise(std::size_t stream, const Run& run) {
  if (store_.layer_of_data(watch_.data()) == states_.size()) return nullptr;
  if (parked_.empty() && !several_ && !Settings::get().reclaim()) return nullptr;
  const Shown restored = shown(stream, run);
  Imprint imprint;
  std::vector<std::size_t> order;
  const Sequence* from = find_restored(stream, restored, imprint, order);
  if (from == nullptr) return nullptr;
  sequences_[stream].push_back(from->resume(store_.cells(), next_number_++, imprint, order));
  store_.take_blank(stream, restored.cells);
  watch_.accept(stream, restored.cells, std::vector<char>(store_.cells(), 0));  // what is blank is not known
  fresh_[stream].insert(fresh_[stream].end(), restored.cells.begin(), restored.cells.end());
  return sequences_[stream].back().get();
}

// Null: none that could go on from there.
const Sequence* Pool::find_restored(std::size_t stream, const Shown& shown, Imprint& imprint,
                                    std::vector<std::size_t>& order) {
  if (const Sequence* parked = parked_.find(shown, order); parked != nullptr) {
    imprint = *parked->imprint();
    return parked;
  }
  const std::size_t count = shown.cells.size();
  for (const bool longer : {false, true})
    for (const auto& sequence : sequences_[stream]) {
      if (!is_worth_parking(*sequence) || sequence->graph == graph_) continue;
      const Imprint* kept = sequence->imprint();
      const std::size_t tokens = kept != nullptr ? kept->order.size() : sequence->chain.size();
      if (tokens < count || (tokens != count) != longer || !sequence->can_go_back_to(count)) continue;
      imprint = kept != nullptr ? *kept
                                : Imprint{sequence->chain.order(), known_keys(stream, *sequence),
                                          sequence->agreed(), sequence->turns};
      if (lies_in(imprint, shown, order)) return sequence.get();
    }
  return nullptr;
}

// Whether the engine has changed these cells since a graph wrote them. No cache that holds one is right then;
// with reclaiming on it may be one that the engine has saved.
bool Pool::is_edited(std::size_t stream, const Run& run) {
  const std::size_t layer = store_.layer_of_data(watch_.data());
  if (layer == states_.size()) return false;
  const std::vector<std::size_t> cells = cells_in(run.past);
  const std::vector<char>& gone = store_.gone(layer, stream);
  const Watch::Past past = watch_.look(stream, cells, gone);
  const bool refilled = is_refilled(layer, stream, run);
  const bool edited = refilled || past == Watch::Past::edited;
  for (auto& sequence : sequences_[stream]) {
    const Chain& chain = sequence->chain;
    if (!edited || std::none_of(cells.begin(), cells.end(), [&](std::size_t c) { return chain.contains(c); }))
      continue;
    if (sequence->graph != graph_ && is_worth_parking(*sequence)) {
      remember(stream, *sequence);
      parked_.park(std::move(sequence));
    } else {
      sequence->drop();
    }
  }
  std::erase(sequences_[stream], nullptr);
  if (refilled) store_.take_blank(stream, cells);
  if (refilled || past != Watch::Past::same) watch_.accept(stream, cells, gone);
  return edited;
}

// Whether the engine has filled the newest of these cells, given back before, with another sequence's: that
// shows once all of it has content. (Where it restores the sequence's own the key is the same.)
bool Pool::is_refilled(std::size_t layer, std::size_t stream, const Run& run) const {
  for (const auto& sequence : sequences_[stream]) {
    if (sequence->chain.size() < run.tokens) continue;
    const std::size_t newest = sequence->chain.order()[run.tokens - 1];
    if (newest >= run.past.size() || run.past[newest] != kVisible) continue;
    if (!store_.refilled(layer, stream, newest) || sequence->chain.common(run.past) < run.tokens) continue;
    if (watch_.known(stream, newest) != watch_.present(stream, newest)) return true;
  }
  return false;
}

// The sequence that has most of its oldest tokens in the run's past; of several the shortest.
Sequence* Pool::nearest(std::size_t stream, const Run& run, std::size_t& common) const {
  Sequence* nearest = nullptr;
  common = 0;
  for (const auto& sequence : sequences_[stream]) {
    const std::size_t n = sequence->chain.common(run.past);
    if (n < std::max<std::size_t>(common, 1)) continue;
    if (n == common && sequence->chain.size() >= nearest->chain.size()) continue;
    nearest = sequence.get();
    common = n;
  }
  return nearest;
}

// The past is none that a sequence has: taken back, forked, restored, moved.
Sequence& Pool::follow(std::size_t stream, const Run& run, bool edited) {
  for (auto& sequence : sequences_[stream]) {
    if (sequence->graph == graph_ || edited || !sequence->chain.ends_with(run.past, run.tokens)) continue;
    sequence->windowed = true;
    return *sequence;
  }
  std::size_t common = 0;
  Sequence* from = nearest(stream, run, common);
  const bool free = from != nullptr && from->graph != graph_;
  if (from != nullptr && common == run.tokens) {
    // In a stream of its own nobody else can go on from what was taken back.
    if (!free) return fork(stream, *from, common);
    if (store_.streams() == 1 && from->cache() != nullptr) return leave_behind(stream, *from, common);
    from->cut(common);
    return *from;
  }
  return assemble(stream, run, edited, from, common);
}

// A past that no sequence has as it is. The cells of one that has them all keep its order: the engine has
// moved them. Those that nobody knows stand in the order of the cells, as the engine restores a state.
Sequence& Pool::assemble(std::size_t stream, const Run& run, bool edited, Sequence* from,
                         std::size_t common) {
  for (auto& sequence : sequences_[stream])
    if (from == nullptr && sequence->chain.covers(run.past)) from = sequence.get();
  const bool covered = from != nullptr && from->chain.covers(run.past);
  if (edited && !covered) common = 0;
  std::vector<std::size_t> rest;
  for (const std::size_t cell : cells_in(run.past))
    if (common == 0 || !from->chain.contains(cell) || from->chain.place(cell) >= common) rest.push_back(cell);
  if (from != nullptr && (covered || !edited))
    std::stable_sort(rest.begin(), rest.end(), [&](std::size_t a, std::size_t b) {
      const bool has_a = from->chain.contains(a), has_b = from->chain.contains(b);
      return has_a && has_b ? from->chain.place(a) < from->chain.place(b) : has_a && !has_b;
    });
  const bool goes_on =
      from != nullptr && from->graph != graph_ && (covered || edited || common == from->chain.size());
  Sequence& into = goes_on                          ? *from
                   : from != nullptr && common != 0 ? fork(stream, *from, common)
                                                    : add(stream);
  into.cut(common);
  for (const std::size_t cell : rest) into.chain.append(cell);
  return into;
}

}  // namespace zeromerge::plugin
