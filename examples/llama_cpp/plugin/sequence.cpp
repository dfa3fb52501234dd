#include "sequence.hpp"

#include <algorithm>
#include <utility>

#include "settings.hpp"
#include "zeromerge/core/errors.hpp"

namespace zeromerge::plugin {

void Sequence::start(std::unique_ptr<AnyCache> cache) {
  drop();
  cache_ = std::move(cache);
  account();
}

void Sequence::drop() noexcept {
  imprint_.reset();
  marks_.clear();
  checkpoint_.reset();
  cache_.reset();
  settle_ = read_ = reading_from_ = peak_ = agreed_ = 0;
  Settings::get().held.change(std::exchange(accounted_, 0), 0, 0);
}

std::unique_ptr<Sequence> Sequence::fork(std::size_t cells, std::uint64_t number, std::size_t tokens) const {
  const std::vector<std::size_t>& order = chain.order();
  auto copy = resume(cells, number, {{}, {}, agreed_, turns},
                     {order.begin(), order.begin() + static_cast<std::ptrdiff_t>(tokens)});
  copy->windowed = windowed;
  return copy;
}

std::unique_ptr<Sequence> Sequence::resume(std::size_t cells, std::uint64_t number, const Imprint& imprint,
                                           const std::vector<std::size_t>& order) const {
  auto copy = std::make_unique<Sequence>(cells, number);
  for (const std::size_t cell : order) copy->chain.append(cell);
  copy->turns = imprint.turns;
  copy->turns.cut(order.size());
  copy->agreed_ = std::min(imprint.agreed, order.size());
  copy->settle_ = settle_;
  copy->read_ = read_;
  copy_cache(*copy);
  return copy;
}

// As much of it as `to` can use.
void Sequence::copy_cache(Sequence& to) const {
  AnyCache* from = way_back_to(to.agreed_);
  if (from == nullptr) return;
  to.cache_ = from->fork();
  for (const Mark& mark : marks_)
    if (mark.tokens <= to.agreed_) to.marks_.push_back({mark.cache->fork(), mark.tokens});
  to.account();
}

void Sequence::remember(std::vector<std::uint64_t> keys) {
  if (!imprint_) imprint_ = Imprint{chain.order(), std::move(keys), agreed_, turns};
}

void Sequence::cut(std::size_t tokens) {
  chain.cut(tokens);
  turns.cut(tokens);
  agreed_ = std::min(agreed_, tokens);
}

void Sequence::begin_turn() {
  if (settle_ != 0 || reading_from_ != 0 || !is_compressed() || cache_->rollback_tokens() == 0) return;
  if (!marks_.empty() && turns.first() < chain.size()) return;
  marks_.clear();
  marks_.push_back({cache_->fork(), chain.size()});
  account();
}

bool Sequence::may_need(std::size_t place) const {
  if (place + 1 == chain.size()) return true;
  if (marks_.empty() || place < marks_.front().tokens) return false;
  return !turns.has_output() || place < turns.prompt_end();
}

void Sequence::append(const std::vector<std::size_t>& cells, bool answered) {
  imprint_.reset();
  std::erase_if(marks_, [&](const Mark& mark) { return mark.tokens > chain.size(); });
  for (const std::size_t cell : cells) chain.append(cell);
  if (answered) agreed_ = chain.size();
}

bool Sequence::can_truncate(AnyCache* cache, std::size_t tokens) {
  if (cache == nullptr) return false;
  for (std::size_t l = 0; l < cache->geometry().layers; ++l) {
    const AnyLayer& layer = cache->layer(l);
    if (layer.tokens() > tokens && !layer.can_truncate(tokens)) return false;
  }
  return true;
}

AnyCache* Sequence::way_back_to(std::size_t tokens) const {
  if (can_truncate(cache_.get(), tokens)) return cache_.get();
  for (auto mark = marks_.rbegin(); mark != marks_.rend(); ++mark)
    if (can_truncate(mark->cache.get(), tokens)) return mark->cache.get();
  return nullptr;
}

// The queries of tokens that are taken back would keep their part in the scores of a prompt.
bool Sequence::goes_back_to_what_it_read() const {
  if (settle_ == 0 || agreed_ > read_) return false;
  for (std::size_t l = 0; l < cache_->geometry().layers; ++l)
    if (held(l) > agreed_) return true;
  return false;
}

bool Sequence::is_compressed() const {
  if (cache_ == nullptr) return false;
  for (std::size_t l = 0; l < cache_->geometry().layers; ++l)
    if (cache_->layer(l).in_prompt()) return false;
  return true;
}

bool Sequence::has_dropped() const {
  for (std::size_t l = 0; l < cache_->geometry().layers; ++l)
    for (std::size_t h = 0; h < cache_->geometry().shape(l).kv_heads; ++h)
      if (cache_->layer(l).entries(h) < held(l)) return true;
  return false;
}

void Sequence::go_back() {
  AnyCache* from = way_back_to(agreed_);
  if (from != cache_.get()) {
    cache_ = from->fork();
    settle_ = 0;
    account();
  }
  for (std::size_t l = 0; l < cache_->geometry().layers; ++l)
    if (held(l) > agreed_) cache_->layer(l).truncate(agreed_);
}

void Sequence::read(std::size_t layer, const RowView& k, const RowView& v) {
  cache_->layer(layer).extend(k, v);
}

void Sequence::has_read(std::size_t tokens, bool anew) {
  if (anew) read_ = tokens;
  settle_ = std::max(settle_, std::min(kSettle, tokens));
  agreed_ = chain.size();
  account();
}

RowKind Sequence::next(std::size_t tokens, std::size_t rows, const std::vector<char>* outputs) {
  if (reading_from_ != 0) return RowKind::prompt;
  turns.cut(tokens);  // what a call that failed has left
  return outputs != nullptr ? turns.next(tokens, *outputs) : turns.next_unknown(tokens, rows);
}

void Sequence::finish_prompt() {
  if (cache_ == nullptr || settle_ != 0 || reading_from_ != 0) return;
  bool open = false;
  for (std::size_t l = 0; l < cache_->geometry().layers; ++l) open = open || cache_->layer(l).in_prompt();
  if (!open) return;
  cache_->finish_prompt();
  if (Settings::get().reclaim() && cache_->rollback_tokens() != 0)
    marks_.push_back({cache_->fork(), held(0)});
  account();
}

void Sequence::answer(std::size_t layer, RowKind kind, const RowView& q, const RowView& k, const RowView& v,
                      const OutView& out) {
  AnyLayer& cached = cache_->layer(layer);
  if (kind == RowKind::prompt || settle_ != 0) {
    cached.prefill(q, k, v, out);
  } else {
    cached.decode(q, k, v, out);
  }
  account();
}

// Their queries look without a trace: no score knows them.
void Sequence::answer_block(std::size_t layer, const RowView& q, const RowView& k, const RowView& v,
                            const OutView& out) {
  AnyLayer& cached = cache_->layer(layer);
  cached.extend(k, v);
  for (std::size_t t = 0; t < q.tokens; ++t) {
    OutView row = out;
    row.data = out.row(t, 0);
    row.tokens = 1;
    cached.attend(q.slice(t, 1), row);
  }
  account();
}

void Sequence::has_answered(std::size_t tokens) {
  settle_ -= std::min(settle_, tokens);
  if (marks_.empty() || Settings::get().reclaim() || !turns.has_output()) return;
  if (chain.size() <= turns.prompt_end() + cache_->rollback_tokens()) return;
  marks_.clear();
  account();
}

void Sequence::begin_second_reading() {
  if (cache_ == nullptr) return;
  for (std::size_t l = 0; l < cache_->geometry().layers; ++l) cache_->layer(l).begin_second_reading();
  reading_from_ = chain.size();
}

void Sequence::end_second_reading() {
  if (cache_ == nullptr || reading_from_ == 0) return;
  for (std::size_t l = 0; l < cache_->geometry().layers; ++l) cache_->layer(l).end_second_reading();
  cut(std::min(chain.size(), reading_from_));
  reading_from_ = 0;
  account();
}

void Sequence::checkpoint() {
  checkpoint_.reset();  // before its successor takes memory
  if (cache_ == nullptr) return;
  checkpoint_ = std::make_unique<Checkpoint>(Checkpoint{cache_->checkpoint(), chain, turns, settle_, read_});
  account();
}

void Sequence::rollback() {
  cache_->rollback(checkpoint_->held);
  imprint_.reset();
  marks_.clear();
  chain = checkpoint_->chain;
  agreed_ = chain.size();
  turns = checkpoint_->turns;
  settle_ = checkpoint_->settle;
  read_ = checkpoint_->read;
  reading_from_ = 0;
  account();
}

// What a cache held beyond what it holds now counts if it came since the last count.
void Sequence::account() {
  if (cache_ == nullptr) return;
  const CacheBytes of_cache = cache_->bytes();
  const std::size_t beyond = of_cache.peak > peak_ ? of_cache.peak - of_cache.held : 0;
  peak_ = of_cache.peak;
  const std::size_t held = bytes();
  Settings::get().held.change(std::exchange(accounted_, held), held, beyond);
}

std::size_t Sequence::bytes() const {
  std::size_t bytes = cache_ != nullptr ? cache_->bytes().held : 0;
  for (const Mark& mark : marks_) bytes += mark.cache->bytes().held;
  return bytes;
}

}  // namespace zeromerge::plugin
