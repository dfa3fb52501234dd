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
  checkpoint_.reset();
  cache_.reset();
  settle_ = read_ = reading_from_ = peak_ = 0;
  Settings::get().held.change(std::exchange(accounted_, 0), 0, 0);
}

std::unique_ptr<Sequence> Sequence::fork(std::size_t cells, std::uint64_t number, std::size_t tokens) const {
  auto copy = std::make_unique<Sequence>(cells, number);
  for (std::size_t i = 0; i < tokens; ++i) copy->chain.append(chain.order()[i]);
  copy->turns = turns;
  copy->turns.cut(tokens);
  copy->windowed = windowed;
  return copy;
}

void Sequence::cut(std::size_t tokens) {
  chain.cut(tokens);
  turns.cut(tokens);
}

// The queries of tokens that are taken back keep their part in the scores of a prompt. Where the past was
// read from the engine's cells it can be read again, so that the same state gives the same answers.
bool Sequence::can_go_back(std::size_t tokens, bool again) const {
  if (cache_ == nullptr) return false;
  for (std::size_t l = 0; l < cache_->geometry().layers; ++l) {
    if (held(l) <= tokens) continue;
    if (again && settle_ != 0 && tokens <= read_) return false;
    if (!cache_->layer(l).can_truncate()) return false;
  }
  return true;
}

bool Sequence::go_back(std::size_t tokens) {
  bool any = false;
  for (std::size_t l = 0; l < cache_->geometry().layers; ++l) {
    if (held(l) <= tokens) continue;
    cache_->layer(l).truncate(tokens);
    any = true;
  }
  return any;
}

void Sequence::read(std::size_t layer, const RowView& k, const RowView& v) {
  cache_->layer(layer).extend(k, v);
}

void Sequence::has_read(std::size_t tokens, bool anew) {
  if (anew) read_ = tokens;
  settle_ = std::max(settle_, std::min(kSettle, tokens));
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
  account();
}

void Sequence::answer(std::size_t layer, RowKind kind, const RowView& q, const RowView& k, const RowView& v,
                      const OutView& out) {
  AnyLayer& cached = cache_->layer(layer);
  if (kind == RowKind::prompt || settle_ != 0) {
    cached.prefill(q, k, v, out);
  } else {
    for (std::size_t t = 0; t < q.tokens; ++t) {
      OutView row = out;
      row.data = out.row(t, 0);
      row.tokens = 1;
      cached.decode(q.slice(t, 1), k.slice(t, 1), v.slice(t, 1), row);
    }
  }
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
  chain.cut(std::min(chain.size(), reading_from_));
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
  chain = checkpoint_->chain;
  turns = checkpoint_->turns;
  settle_ = checkpoint_->settle;
  read_ = checkpoint_->read;
  reading_from_ = 0;
  account();
}

// What a cache held beyond what it holds now counts if it came since the last count.
void Sequence::account() {
  if (cache_ == nullptr) return;
  const CacheBytes bytes = cache_->bytes();
  const std::size_t beyond = bytes.peak > peak_ ? bytes.peak - bytes.held : 0;
  peak_ = bytes.peak;
  Settings::get().held.change(std::exchange(accounted_, bytes.held), bytes.held, beyond);
}

}  // namespace zeromerge::plugin
