#include "stream.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "caches.hpp"
#include "settings.hpp"
#include "zeromerge/core/errors.hpp"

namespace zeromerge::plugin {

namespace {

constexpr std::uint16_t kVisible = 0;      // +0 in f16
constexpr std::uint16_t kHidden = 0xfc00;  // -infinity
constexpr std::size_t kSettle = 64;        // queries that a rebuilt cache sees before it is compressed: without any, it could
                                           // only guess what matters

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
  cache_.reset();
  Settings::get().held.change(std::exchange(accounted_, 0), 0, 0);
}

void Stream::account() {
  const CacheBytes bytes = cache_->bytes();
  Settings::get().held.change(std::exchange(accounted_, bytes.held), bytes.held, bytes.peak - bytes.held);
}

bool Stream::attend(const Call& call, const std::vector<std::size_t>& written) {
  const bool changed = content_changed(call, written);
  mark_written(written);
  if (!rows_are_causal(call, written)) {
    go_stateless(call);
    return false;
  }
  std::vector<std::size_t> past;
  const std::uint16_t* row = call.mask_row(0);
  for (std::size_t cell = 0; cell < call.cells(); ++cell)
    if (row[cell] == kVisible && cell != written[0]) past.push_back(cell);
  if (past.empty()) {
    restart(call);
  } else if (stateless_ || !follow_past(call, past, changed)) {
    go_stateless(call);
    return false;
  }
  run(call, written);
  return true;
}

void Stream::finish_prompt() {
  if (cache_ == nullptr || settle_ != 0) return;
  cache_->layer(0).finish_prompt();
  account();
}

// A cell that is written again has lost its old content, whatever it was.
void Stream::mark_written(const std::vector<std::size_t>& written) {
  for (const std::size_t cell : written) {
    if (state_[cell] == Cell::live) {
      const auto at = std::find(order_.begin(), order_.end(), cell);
      // What was rolled back is usually the end; anything else shows as a hole, which follow_past treats as an edit.
      if (at != order_.end()) *at = state_.size();
    }
    state_[cell] = Cell::unused;
    given_back_[cell] = 0;
  }
}

// Row 0 may see anything; every further row sees what the one before it saw and its own token.
bool Stream::rows_are_causal(const Call& call, const std::vector<std::size_t>& written) const {
  if (written.size() != call.tokens()) return false;
  std::vector<std::uint16_t> expected(call.mask_row(0), call.mask_row(0) + call.cells());
  for (const std::uint16_t x : expected)
    if (x != kVisible && x != kHidden) return false;
  if (written[0] >= call.cells() || expected[written[0]] != kVisible) return false;
  for (std::size_t t = 1; t < written.size(); ++t) {
    if (written[t] >= call.cells() || expected[written[t]] == kVisible) return false;
    expected[written[t]] = kVisible;
    if (std::memcmp(expected.data(), call.mask_row(t), call.cells() * sizeof(std::uint16_t)) != 0) return false;
  }
  return true;
}

// Brings the cache to the past that this call sees (cells in rising order). False: no single causal sequence explains it.
bool Stream::follow_past(const Call& call, const std::vector<std::size_t>& past, bool changed) {
  if (past.size() == order_.size() && !changed) {
    std::size_t live = 0;
    for (const std::size_t cell : past) live += state_[cell] == Cell::live ? 1 : 0;
    if (live == past.size()) return true;
  }
  for (const std::size_t cell : past)
    if (state_[cell] == Cell::retired) return false;  // another sequence in the same stream
  std::vector<char> visible(state_.size() + 1, 0);
  for (const std::size_t cell : past) visible[cell] = 1;
  std::vector<std::size_t> left;  // live cells still seen, in the order of their tokens
  for (const std::size_t cell : order_)
    if (visible[cell]) left.push_back(cell);
  const bool all_known = left.size() == past.size();
  if (all_known && !changed && is_suffix(left, order_)) return false;  // a window moves on
  if (all_known && !changed && is_prefix(left, order_) && cache_->layer(0).can_truncate()) {
    cache_->layer(0).truncate(left.size());
    for (std::size_t i = left.size(); i < order_.size(); ++i)
      if (order_[i] < state_.size()) state_[order_[i]] = Cell::unused;
    order_ = std::move(left);
    return true;
  }
  // Cells whose tokens are known keep their order, the others (restored by the engine) stand in the order of cells.
  for (const std::size_t cell : left) visible[cell] = 0;
  std::vector<std::size_t> ordered;
  for (const std::size_t cell : past)
    if (visible[cell]) ordered.push_back(cell);
  ordered.insert(ordered.end(), left.begin(), left.end());
  if (left.empty()) std::sort(ordered.begin(), ordered.end());
  rebuild(call, std::move(ordered));
  return true;
}

void Stream::restart(const Call& call) {
  for (const std::size_t cell : order_)
    if (cell < state_.size()) state_[cell] = Cell::retired;
  order_.clear();
  stateless_ = false;
  settle_ = 0;
  Geometry g;
  g.layers = 1;
  g.query_heads = static_cast<std::size_t>(call.q->ne[2]);
  g.kv_heads = static_cast<std::size_t>(call.k->ne[2]);
  g.head_dim = static_cast<std::size_t>(call.k->ne[0]);
  g.scale = call.scale;
  CacheOptions options;
  options.executor = executor_;
  options.workspace = workspace_;
  options.first_layer = static_cast<std::size_t>(layer_ < 0 ? 0 : layer_);
  drop_cache();  // before its successor takes memory
  cache_ = new_cache(Settings::get().policy(), g, std::move(options));
  if (std::exchange(pages_swept_, true) || !Settings::get().reclaim()) return;
  k_pages_.give_back_untouched();
  v_pages_.give_back_untouched();
}

// Reads the past again from the engine's cells. Its queries are gone, so the next tokens' queries decide what is kept.
void Stream::rebuild(const Call& call, std::vector<std::size_t> past) {
  need(past);
  restart(call);
  std::vector<char> keys;
  std::vector<char> values;
  const RowView k = gather(call, call.k, past, keys);
  const RowView v = gather(call, call.v, past, values);
  cache_->layer(0).extend(k, v);
  for (const std::size_t cell : past) state_[cell] = Cell::live;
  order_ = std::move(past);
  settle_ = kSettle;
  ++Settings::get().rebuilds;
}

void Stream::run(const Call& call, const std::vector<std::size_t>& written) {
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
  if (call.tokens() == 1 && settle_ == 0) {
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
  remember_content(call);
  // What the first call brought waits for the second: by then every layer has been seen, and with it which of them keep a window.
  if (Settings::get().reclaim() && std::exchange(seen_before_, true)) {
    waiting_.insert(waiting_.end(), written.begin(), written.end());
    give_back(std::exchange(waiting_, {}));
  } else {
    waiting_ = written;
  }
}

void Stream::give_back(const std::vector<std::size_t>& written) {
  const auto [first, last] = std::minmax_element(written.begin(), written.end());
  const auto consumed = [&](std::size_t cell) { return cell >= state_.size() || state_[cell] == Cell::live; };
  const auto gone = [&](std::size_t cell) {
    if (cell < given_back_.size()) given_back_[cell] = 1;
  };
  k_pages_.give_back(*first, *last, consumed, gone);
  v_pages_.give_back(*first, *last, consumed, gone);
}

void Stream::need(const std::vector<std::size_t>& cells) const {
  std::size_t missing = 0;
  for (const std::size_t cell : cells) missing += given_back_[cell] ? 1 : 0;
  if (missing == 0) return;
  ++Settings::get().refusals;
  fail("layer ", layer_, ": the past was edited or is shared, and ", missing, " of the ", cells.size(),
       " cells it needs were given back to the system; start the sequence anew, or run without ZEROMERGE_RECLAIM");
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

namespace {

std::uint64_t first_bytes(const Call& call, std::size_t cell) {
  std::uint64_t x = 0;
  const auto* row = static_cast<const char*>(call.k->data) + call.stream * call.k->nb[3] + cell * call.k->nb[1];
  std::memcpy(&x, row, sizeof x);
  return x;
}

}  // namespace

// A rotated (shifted) or restored cell shows in its bytes only.
bool Stream::content_changed(const Call& call, const std::vector<std::size_t>& written) const {
  if (order_.empty() || stateless_) return false;
  const std::size_t ends[2] = {order_.front(), order_.back()};
  for (int i = 0; i < 2; ++i) {
    const std::size_t cell = ends[i];
    if (cell >= call.cells() || state_[cell] != Cell::live || given_back_[cell]) continue;
    if (std::find(written.begin(), written.end(), cell) != written.end()) continue;
    if (first_bytes(call, cell) != content_[i]) return true;
  }
  return false;
}

void Stream::remember_content(const Call& call) {
  content_[0] = first_bytes(call, order_.front());
  content_[1] = first_bytes(call, order_.back());
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
