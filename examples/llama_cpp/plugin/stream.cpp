#include "stream.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "caches.hpp"
#include "ropes.hpp"
#include "settings.hpp"
#include "zeromerge/core/errors.hpp"

namespace zeromerge::plugin {

namespace {

constexpr std::uint16_t kHidden = 0xfc00;  // -infinity
constexpr std::size_t kSettle = 64;  // queries that a rebuilt cache sees before it is compressed: without
                                     // any, it could only guess what matters

// Whether `part` is what is left of `whole` after cutting its end.
bool is_prefix(const std::vector<std::size_t>& part, const std::vector<std::size_t>& whole) {
  return part.size() <= whole.size() && std::equal(part.begin(), part.end(), whole.begin());
}

// Whether `part` is what is left of `whole` after losing its oldest.
bool is_suffix(const std::vector<std::size_t>& part, const std::vector<std::size_t>& whole) {
  return part.size() < whole.size() && std::equal(part.rbegin(), part.rend(), whole.rbegin());
}

}  // namespace

const std::uint16_t* Call::mask_row(std::size_t token) const {
  const std::size_t s = static_cast<std::size_t>(mask->ne[3]) > 1 ? stream : 0;
  return reinterpret_cast<const std::uint16_t*>(static_cast<const char*>(mask->data) + s * mask->nb[3] +
                                                token * mask->nb[1]);
}

Stream::Stream(const ggml_tensor* k_root, const ggml_tensor* v_root, std::size_t stream, Executor executor,
               std::shared_ptr<Workspace> workspace)
    : k_pages_(k_root, stream),
      v_pages_(v_root, stream),
      layer_(layer_of(k_root)),
      executor_(std::move(executor)),
      workspace_(std::move(workspace)),
      state_(static_cast<std::size_t>(k_root->ne[1]), Cell::unused),
      given_back_(state_.size(), 0) {}

Stream::~Stream() { drop_cache(); }

void Stream::drop_cache() {
  if (cache_) checkpoint_.reset();
  cache_.reset();
  Settings::get().held.change(std::exchange(accounted_, 0), 0, 0);
}

void Stream::account() {
  const CacheBytes bytes = cache_->bytes();
  Settings::get().held.change(std::exchange(accounted_, bytes.held), bytes.held, bytes.peak - bytes.held);
}

bool Stream::attend(const Call& call, const Sight& sight, bool edited,
                    const std::function<void()>& prompt_ends) {
  has_read_again_ = false;
  const bool follows = std::exchange(last_sight_, sight.number) == sight.follows && sight.follows != 0;
  mark_written(sight.written);
  if (!sight.causal) {
    go_stateless(call);
    return false;
  }
  if (sight.past.empty()) {
    restart(call);
  } else if (stateless_ || !follow_past(call, sight.past, edited, follows)) {
    go_stateless(call);
    return false;
  }
  run(call, sight.written, prompt_ends);
  return true;
}

void Stream::finish_prompt() {
  if (cache_ == nullptr || settle_ != 0) return;
  cache_->layer(0).finish_prompt();
  account();
}

AnyLayer* Stream::waits_for_others() const {
  if (cache_ == nullptr || settle_ != 0 || read_from_ != 0) return nullptr;
  AnyLayer& layer = cache_->layer(0);
  return layer.in_prompt() && layer.shares_budget() ? &layer : nullptr;
}

void Stream::begin_second_reading() {
  if (cache_ == nullptr) return;
  cache_->layer(0).begin_second_reading();
  read_from_ = order_.size();
}

void Stream::end_second_reading() {
  if (cache_ == nullptr || read_from_ == 0) return;
  cache_->layer(0).end_second_reading();
  for (std::size_t i = read_from_; i < order_.size(); ++i)
    if (order_[i] < state_.size()) state_[order_[i]] = Cell::unused;
  order_.resize(std::min(order_.size(), read_from_));
  read_from_ = 0;
  account();
}

void Stream::checkpoint() {
  checkpoint_.reset();  // before its successor takes memory
  checkpoint_ = std::make_unique<Checkpoint>(
      Checkpoint{cache_ ? cache_->layer(0).checkpoint() : nullptr, order_, state_, waiting_, settle_});
  if (cache_) account();
}

void Stream::require_checkpoint() const {
  if (checkpoint_ == nullptr)
    fail("layer ", layer_,
         ": there is no checkpoint to go back to; none was taken, or since then the sequence was started "
         "anew, or its past was edited");
}

// The next sight follows none that the cache has seen: its cells are looked at one by one.
void Stream::rollback() {
  require_checkpoint();
  if (checkpoint_->held) {
    cache_->layer(0).rollback(*checkpoint_->held);
    account();
  }
  order_ = checkpoint_->order;
  state_ = checkpoint_->state;
  waiting_ = checkpoint_->waiting;
  settle_ = checkpoint_->settle;
  read_from_ = 0;
  last_sight_ = 0;
}

void Stream::visit_heads(zeromerge_head_visitor_t visit, void* context, std::uint64_t stream) const {
  const AnyLayer& layer = cache_->layer(0);
  std::vector<std::uint64_t> positions;
  zeromerge_head head{};
  head.stream = stream;
  head.layer = static_cast<std::uint64_t>(layer_ < 0 ? 0 : layer_);
  head.tokens = tokens();
  for (std::size_t h = 0; h < cache_->geometry().kv_heads; ++h) {
    positions.resize(layer.entries(h));
    for (std::size_t slot = 0; slot < positions.size(); ++slot) positions[slot] = layer.position(h, slot);
    head.head = h;
    head.entries = positions.size();
    head.positions = positions.data();
    visit(context, &head);
  }
}

// A cell that is written again has lost its old content, whatever it was.
void Stream::mark_written(const std::vector<std::size_t>& written) {
  for (const std::size_t cell : written) {
    if (state_[cell] == Cell::live) {
      const auto at = std::find(order_.begin(), order_.end(), cell);
      // What was rolled back is usually the end; anything else shows as a hole, which follow_past treats as
      // an edit.
      if (at != order_.end()) *at = state_.size();
    }
    state_[cell] = Cell::unused;
    given_back_[cell] = 0;
  }
}

// Brings the cache to the past that this call sees (cells in rising order). False: no single causal sequence
// explains it.
bool Stream::follow_past(const Call& call, const std::vector<std::size_t>& past, bool edited, bool follows) {
  if (past.size() == order_.size() && !edited) {
    if (follows) return true;
    std::size_t live = 0;
    for (const std::size_t cell : past) live += state_[cell] == Cell::live ? 1 : 0;
    if (live == past.size()) return true;
  }
  std::vector<char> visible(state_.size() + 1, 0);
  for (const std::size_t cell : past) visible[cell] = 1;
  std::vector<std::size_t> left;  // live cells still seen, in the order of their tokens
  for (const std::size_t cell : order_)
    if (visible[cell]) left.push_back(cell);
  // Cells from before a restart, and not all of those since then: another sequence in the same stream. With
  // all of them, the engine has restored a past.
  const auto live =
      std::count_if(order_.begin(), order_.end(), [&](std::size_t cell) { return cell < state_.size(); });
  if (left.size() < static_cast<std::size_t>(live))
    for (const std::size_t cell : past)
      if (state_[cell] == Cell::retired) return false;
  const bool all_known = left.size() == past.size();
  if (all_known && !edited && is_suffix(left, order_)) return false;  // a window moves on
  // A cell that was given back has content only if the engine has restored one.
  const bool restored = !left.empty() && given_back_[left.back()] != 0 && !k_pages_.blank(left.back(), true);
  if (all_known && !edited && !restored && cut(left)) return true;
  // Cells whose tokens are known keep their order, the others (restored by the engine) stand in the order of
  // cells.
  for (const std::size_t cell : left) visible[cell] = 0;
  std::vector<std::size_t> ordered;
  for (const std::size_t cell : past)
    if (visible[cell]) ordered.push_back(cell);
  ordered.insert(ordered.end(), left.begin(), left.end());
  if (left.empty()) std::sort(ordered.begin(), ordered.end());
  rebuild(call, std::move(ordered));
  return true;
}

// Cuts the end of what the cache holds, so that `left` remains. False: that is not its beginning, or the
// cache cannot go back.
bool Stream::cut(std::vector<std::size_t> left) {
  if (!is_prefix(left, order_) || !cache_->layer(0).can_truncate()) return false;
  cache_->layer(0).truncate(left.size());
  for (std::size_t i = left.size(); i < order_.size(); ++i)
    if (order_[i] < state_.size()) state_[order_[i]] = Cell::unused;
  order_ = std::move(left);
  return true;
}

bool Stream::cut_to(const std::vector<std::size_t>& past) {
  std::vector<std::size_t> left(
      order_.begin(), order_.begin() + static_cast<std::ptrdiff_t>(std::min(past.size(), order_.size())));
  std::vector<std::size_t> rising = left;
  std::sort(rising.begin(), rising.end());
  return rising == past && (left.size() == order_.size() || cut(std::move(left)));
}

void Stream::restart(const Call& call) {
  for (const std::size_t cell : order_)
    if (cell < state_.size()) state_[cell] = Cell::retired;
  order_.clear();
  checkpoint_.reset();
  stateless_ = false;
  settle_ = read_from_ = 0;
  Geometry g;
  g.layers = 1;
  g.query_heads = static_cast<std::size_t>(call.q->ne[2]);
  g.kv_heads = static_cast<std::size_t>(call.k->ne[2]);
  g.head_dim = static_cast<std::size_t>(call.k->ne[0]);
  g.scale = call.scale;
  g.logit_softcap = call.softcap;
  CacheOptions options;
  options.executor = executor_;
  options.workspace = workspace_;
  options.first_layer = static_cast<std::size_t>(layer_ < 0 ? 0 : layer_);
  options.rope = Ropes::get().of(layer_);
  drop_cache();  // before its successor takes memory
  cache_ = new_cache(Settings::get().policy(), g, std::move(options));
  if (std::exchange(pages_swept_, true) || !Settings::get().reclaim()) return;
  k_pages_.give_back_untouched();
  v_pages_.give_back_untouched();
}

// Reads the past again from the engine's cells. Its queries are gone, so the next tokens' queries decide what
// is kept.
void Stream::rebuild(const Call& call, std::vector<std::size_t> past) {
  need(past, true);
  restart(call);
  std::vector<char> keys;
  std::vector<char> values;
  const RowView k = gather(call, call.k, past, keys);
  const RowView v = gather(call, call.v, past, values);
  cache_->layer(0).extend(k, v);
  for (const std::size_t cell : past) {
    state_[cell] = Cell::live;
    given_back_[cell] = 0;
  }
  order_ = std::move(past);
  waiting_ = order_;
  settle_ = kSettle;
  has_read_again_ = true;
  ++Settings::get().rebuilds;
}

void Stream::run(const Call& call, const std::vector<std::size_t>& written,
                 const std::function<void()>& prompt_ends) {
  std::vector<char> keys;
  std::vector<char> values;
  const RowView k = gather(call, call.k, written, keys);
  const RowView v = gather(call, call.v, written, values);
  const RowView q = cell_rows(call.q, call.stream, 0, call.tokens());
  OutView out;
  out.data = reinterpret_cast<float*>(static_cast<char*>(call.out->data) + call.stream * call.out->nb[3]);
  out.tokens = call.tokens();
  out.heads = static_cast<std::size_t>(call.out->ne[1]);
  out.head_dim = static_cast<std::size_t>(call.out->ne[0]);
  out.token_stride = static_cast<std::ptrdiff_t>(call.out->nb[2]);
  out.head_stride = static_cast<std::ptrdiff_t>(call.out->nb[1]);
  AnyLayer& layer = cache_->layer(0);
  if (call.sinks != nullptr)
    layer.set_sink_logits({static_cast<const float*>(call.sinks->data), cache_->geometry().query_heads});
  if (call.tokens() == 1 && settle_ == 0 && read_from_ == 0) {
    if (waits_for_others() != nullptr) prompt_ends();
    layer.decode(q, k, v, out);
  } else {
    layer.prefill(q, k, v, out);
    settle_ -= std::min(settle_, call.tokens());
  }
  for (const std::size_t cell : written) {
    state_[cell] = Cell::live;
    order_.push_back(cell);
  }
  account();
  // What the first call brought waits for the second: by then every layer has been seen, and with it which of
  // them keep a window.
  waiting_.insert(waiting_.end(), written.begin(), written.end());
  const bool reclaim = Settings::get().reclaim();
  if (reclaim && std::exchange(seen_before_, true)) {
    give_back(std::exchange(waiting_, {written.back()}));
  } else if (!reclaim) {
    waiting_.clear();
  }
}

// Never that of the newest token: if the engine moves the past, it shows there.
void Stream::give_back(const std::vector<std::size_t>& written) {
  const auto [first, last] = std::minmax_element(written.begin(), written.end());
  const auto consumed = [&](std::size_t cell) {
    return cell >= state_.size() || (state_[cell] == Cell::live && cell != order_.back());
  };
  const auto gone = [&](std::size_t cell) {
    if (cell < given_back_.size()) given_back_[cell] = 1;
  };
  k_pages_.give_back(*first, *last, consumed, gone);
  v_pages_.give_back(*first, *last, consumed, gone);
}

// That these cells have content. Those that were given back may have got it again, from a state that the
// engine restored; and (all) a state that was saved after its cells were given back brings none.
void Stream::need(const std::vector<std::size_t>& cells, bool all) const {
  std::size_t missing = 0;
  for (const std::size_t cell : cells) {
    const bool gone = given_back_[cell] ? k_pages_.blank(cell, true) || v_pages_.blank(cell, true)
                                        : all && k_pages_.blank(cell, false);
    missing += gone ? 1 : 0;
  }
  if (missing == 0) return;
  ++Settings::get().refusals;
  fail("layer ", layer_, ": the past was edited or is shared, and ", missing, " of the ", cells.size(),
       " cells it needs were given back to the system; start the sequence anew, or run without "
       "ZEROMERGE_RECLAIM");
}

// From here on the engine's cells answer, until the stream restarts; they must all be there.
void Stream::go_stateless(const Call& call) {
  std::vector<std::size_t> seen;
  for (std::size_t cell = 0; cell < call.cells(); ++cell) {
    bool visible = false;
    for (std::size_t t = 0; t < call.tokens() && !visible && given_back_[cell]; ++t)
      visible = call.mask_row(t)[cell] != kHidden;
    if (visible) seen.push_back(cell);
  }
  if (!seen.empty()) need(seen);
  stateless_ = true;
  drop_cache();
  for (const std::size_t cell : order_)
    if (cell < state_.size()) state_[cell] = Cell::retired;
  order_.clear();
}

// Rows of these cells; in place where the cells follow one another.
RowView Stream::gather(const Call& call, const ggml_tensor* operand, const std::vector<std::size_t>& cells,
                       std::vector<char>& buffer) const {
  const bool run = std::adjacent_find(cells.begin(), cells.end(),
                                      [](std::size_t a, std::size_t b) { return b != a + 1; }) == cells.end();
  RowView view = cell_rows(operand, call.stream, run ? cells[0] : 0, cells.size());
  if (run) return view;
  const std::size_t row = view.head_dim * element_size(view.type);
  buffer.resize(cells.size() * view.heads * row);
  for (std::size_t i = 0; i < cells.size(); ++i)
    for (std::size_t h = 0; h < view.heads; ++h)
      std::memcpy(buffer.data() + (i * view.heads + h) * row, view.row(cells[i], h), row);
  view.data = buffer.data();
  view.head_stride = static_cast<std::ptrdiff_t>(row);
  view.token_stride = static_cast<std::ptrdiff_t>(row * view.heads);
  return view;
}

}  // namespace zeromerge::plugin
