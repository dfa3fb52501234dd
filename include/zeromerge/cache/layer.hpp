// The cache of one layer of one sequence: the order of a call is append, attend, score, budget, merge.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "zeromerge/cache/attend.hpp"
#include "zeromerge/cache/budget_share.hpp"
#include "zeromerge/cache/check.hpp"
#include "zeromerge/cache/checkpoint.hpp"
#include "zeromerge/cache/evict.hpp"
#include "zeromerge/cache/finish_together.hpp"
#include "zeromerge/cache/growth.hpp"
#include "zeromerge/cache/layer_context.hpp"
#include "zeromerge/cache/policy.hpp"
#include "zeromerge/cache/prompt.hpp"
#include "zeromerge/cache/prompt_end.hpp"
#include "zeromerge/cache/second_reading.hpp"
#include "zeromerge/cache/tail_score.hpp"
#include "zeromerge/cache/undo.hpp"

namespace zeromerge {

template <class P>
class KvCache;

template <class P>
class LayerCache {
 public:
  using HeadType = Head<typename P::Key, typename P::Value>;

  // `number`: of the cache's layers.
  LayerCache(LayerContext<P>* context, std::size_t number, std::size_t sequence = 0)
      : context_(context),
        number_(number),
        sequence_(sequence),
        shape_(context->geometry.shape(number)),
        states_(shape_.kv_heads),
        queries_(shape_.query_heads, shape_.head_dim, shape_.attention_scale(), context->ledger.get()),
        second_(context->ledger.get()) {
    const P& policy = context->policy;
    heads_.reserve(shape_.kv_heads);
    for (std::size_t h = 0; h < shape_.kv_heads; ++h)
      heads_.emplace_back(shape_.head_dim, policy.fields(), context->ledger.get(), policy.key_type,
                          policy.value_type);
  }
  // A layer is its cache's; a copy would be an accident. See KvCache::fork and checkpoint().
  LayerCache(const LayerCache&) = delete;
  LayerCache(LayerCache&&) noexcept = default;
  LayerCache& operator=(LayerCache&&) noexcept = default;

  // Takes tokens of a prompt: q [tokens][query_heads][head_dim], k and v [tokens][kv_heads][head_dim] (keys
  // after RoPE). Writes their exact causal attention over everything the cache holds to out
  // [tokens][query_heads][head_dim]. A prompt may come in any number of calls; after decoded tokens a call
  // starts the next one. Throws Error, with nothing changed, on wrong shapes, on values that are not finite
  // or not storable and, in bounded mode, on a budget that is impossible for the first chunk.
  void prefill(const RowView& q, const RowView& k, const RowView& v, const OutView& out) {
    check(q, k, v, out, q.tokens);
    if (q.tokens == 0) return;
    if (!context_->policy.bounded) return take_chunk(q, k, v, out);
    {
      const auto query = budget_query(tokens_ + std::min(context_->chunk, q.tokens));
      (void)detail::divide_all(context_->policy, query, context_->policy.budget.capacities(query));
    }
    for (std::size_t t = 0; t < q.tokens; t += context_->chunk) {
      const std::size_t n = std::min(context_->chunk, q.tokens - t);
      OutView part = out;
      part.data = out.row(t, 0);
      part.tokens = n;
      take_chunk(q.slice(t, n), k.slice(t, n), v.slice(t, n), part);
      fit_to_budget();
    }
  }

  // Takes tokens of a prompt whose queries are not at hand (an engine restores its past): as prefill, without
  // attention. Until later queries see them their score is 0.
  void extend(const RowView& k, const RowView& v) {
    check_entries(k, v, k.tokens);
    open_prompt(k.tokens);
    bring_scores_up();
    queries_.clear();  // those kept are no longer the newest tokens'
    append(k, v);
  }

  // Ends the prompt: brings every head to its budget and its entries into their final form. A budget that
  // shares out over all layers goes on from what the layers that ended theirs before have got, so that the
  // prompt of one layer is held at a time; KvCache::finish_prompt compares all of them. Throws Error, with
  // nothing changed, if the budget is impossible for this prompt.
  void finish_prompt() {
    if (!in_prompt_) return;
    if (tokens_ == 0) return finish_prompt({}, capacities({}));
    LayerCache* const own = this;
    finish_together(std::span<LayerCache* const>(&own, 1));
  }

  // The same in two parts, for budgets that share out over all layers; see finish_together.
  bool shares_budget() const noexcept { return context_->shares_budget(); }
  // Rating brings scores up to date; take_back() undoes that, also if it throws (Error: a score has nothing
  // to go by).
  void rate_prompt(PromptRatings& ratings) {
    if (unscored_ != 0)
      for (const HeadType& head : heads_)
        ratings.scores_before.emplace_back(head.score(), head.score() + head.size());
    ratings.unscored = unscored_;
    bring_scores_up();
    detail::rate_prompt(prompt_layer(), budget_query(tokens_), ratings);
  }
  void take_back(const PromptRatings& ratings) noexcept {
    if (ratings.unscored == 0) return;
    for (std::size_t h = 0; h < heads_.size(); ++h)
      std::copy(ratings.scores_before[h].begin(), ratings.scores_before[h].end(), heads_[h].score());
    unscored_ = ratings.unscored;
  }
  // [kv_heads] of these layers one after another (none: of this one), whose heads' entries the budget
  // compares; without ratings: only a check. Throws Error if one is impossible, which does not depend on
  // ratings.
  std::vector<std::size_t> capacities(const PromptRatings& ratings, const LayerList& layers = {}) const {
    auto query = budget_query(tokens_);
    query.layers = std::max<std::size_t>(1, layers.numbers.size());
    query.numbers = layers.numbers;
    query.each = layers.kv_heads;
    query.importance = ratings.for_budget;
    query.within_error = ratings.within_error;
    const auto progress = progress_of(layers.numbers);
    if (progress) query.progress = &*progress;
    const auto all = context_->policy.budget.capacities(query);
    (void)detail::divide_all(context_->policy, query, all);
    return all;
  }
  void finish_prompt(const PromptRatings& ratings, std::span<const std::size_t> capacities) {
    const auto query = budget_query(tokens_);
    const auto divisions = detail::divide_all(context_->policy, query, capacities);
    BudgetShare share;
    if (shares_over_layers() && tokens_ != 0)
      share = detail::share_of(context_->policy.budget, query, capacities, ratings.for_budget,
                               mean_of(context_->policy.budget, query) * context_->heads());
    bring_scores_up();
    for (auto& head : heads_) head.keep_nothing();
    detail::end_prompt(prompt_layer(), std::span<const Division>(divisions), ratings);
    take_share(std::move(share));
    queries_.clear();
    second_.clear();
    context_->workspace->release_prompt();
    in_prompt_ = false;
  }

  // A second reading of the prompt (KVzip): between these calls prefill takes the context once more, behind
  // the prompt, and the most attention that each of the prompt's entries gets is noted for the policy's score
  // of whole prompts. The end forgets what has been read since the begin; an engine that forgets it itself
  // may truncate to the same length before. May be repeated, for a context in parts. Throws Error unless the
  // prompt has not ended yet and nothing of it has been compressed.
  void begin_second_reading() {
    if (!in_prompt_ || tokens_ == 0 || !can_truncate())
      fail(
          "second reading: it needs a prompt of which nothing has been compressed; begin it before the "
          "prompt ends");
    second_.begin(heads_.size(), tokens_);
  }
  void end_second_reading() {
    if (!second_.reading()) fail("second reading: none has begun");
    const std::size_t read = second_.entries();
    if (tokens_ > read) truncate(read);
    second_.end();
  }

  // Takes tokens one after another, one at least, and writes the attention of each over everything held then,
  // itself included: outputs and what is kept are, bit for bit, those of one call for each of them (drafts
  // that a model verifies together). The first ends a prompt. Shapes as in prefill. Throws Error, with
  // nothing changed, on wrong shapes, on values that are not finite or not storable, and if the budget is
  // impossible for the prompt.
  void decode(const RowView& q, const RowView& k, const RowView& v, const OutView& out) {
    for (const auto& head : heads_) head.expect_one();
    if (q.tokens == 0) fail("decode: it takes one token at least, got none");
    check(q, k, v, out, q.tokens);
    if (in_prompt_) finish_with_others();
    make_room_for(q.tokens);
    const auto layer = view();
    const auto plan = detail::plan_decode(layer, scratch_, q.tokens);
    const std::size_t first = tokens_;
    detail::attend_tokens(
        layer, plan, q, out,
        [&](std::size_t h, std::size_t t) {
          begin_token(h, first + t + 1, q.tokens - t);
          append_row(k, v, h, t, first + t);
        },
        [&](const detail::DecodePlan& p, std::size_t h, std::size_t t) {
          if constexpr (P::ScoreType::needs_probabilities)
            detail::add_probabilities(layer, p, h, context_->policy.score.decay());
          if constexpr (ranks<typename P::ScoreType>())
            evict(context_->policy, heads_[h], states_[h], first + t + 1);
          heads_[h].pack(loose_rows(states_[h].division));
          heads_[h].log().end();
        });
    tokens_ += q.tokens;
  }

  // Attention of one token's queries over everything held, which changes nothing: q
  // [1][query_heads][head_dim] to out of the same shape and, unless null, the log of every head's sum of
  // exponentials to lse [query_heads]. Throws Error on wrong shapes, values that are not finite, and on an
  // empty cache.
  void attend(const RowView& q, const OutView& out, float* lse = nullptr) {
    detail::check_queries(shape_, q, out, 1);
    if (tokens_ == 0) fail("attend: the cache is empty; give it a prompt first");
    const auto layer = view();
    const auto plan = detail::plan_decode(layer, scratch_, 0);
    detail::attend_token(layer, plan, q, out, lse, [](const detail::DecodePlan&, std::size_t) {});
  }

  void clear() noexcept {
    for (auto& head : heads_) head.clear();
    std::fill(states_.begin(), states_.end(), HeadState{});
    queries_.clear();
    second_.clear();
    budget_share_ = {};
    tokens_ = unscored_ = opened_ = 0;
    in_prompt_ = true;
  }

  // Whether truncate(tokens) is possible.
  bool can_truncate(std::size_t tokens) const noexcept {
    return tokens <= tokens_ && (tokens_ - tokens <= can_take_back() || can_truncate());
  }
  // Nothing has been folded, dropped or set aside for merging yet, so the cache can go back to any earlier
  // length.
  bool can_truncate() const noexcept {
    return std::all_of(states_.begin(), states_.end(),
                       [](const HeadState& state) { return state.residuals == 0; }) &&
           std::all_of(heads_.begin(), heads_.end(),
                       [&](const HeadType& head) { return head.size() == tokens_; });
  }
  // The newest tokens that can be taken back, whatever has left: of a prompt that has not ended its own (in
  // bounded mode none); after that at most Areas::rollback, the decoded ones and, behind them, those of the
  // prompt that stand for themselves among the last entries of every head.
  std::size_t can_take_back() const noexcept {
    if (in_prompt_) return context_->policy.bounded ? 0 : tokens_ - opened_;
    std::size_t most = context_->policy.areas.rollback;
    for (std::size_t h = 0; h < heads_.size(); ++h)
      most = detail::can_take_back(heads_[h], states_[h], tokens_, most);
    return most;
  }

  // Forgets all but the first `tokens`. Within can_take_back() of an ended prompt it stays ended, entries
  // that these tokens made are gone and what left for them is back, bit for bit: keys, values, masses,
  // positions and what decides who leaves next. Scores too, for tokens of the newest decode call; beyond it
  // the queries that are forgotten keep their part in them. (A policy without scores goes back to every bit.)
  // Of a prompt's own tokens the entries go; in q4 those of their group that stay are kept in 8 bits from
  // then on. Nothing is allocated and nothing fails. Otherwise, if can_truncate(), the prompt goes on from
  // there; memory is given back, and the queries of tokens that are forgotten keep their part in the scores.
  // Throws Error, with nothing changed, where neither is possible.
  void truncate(std::size_t tokens) {
    if (tokens > tokens_) fail("truncate: the layer holds ", tokens_, " tokens, asked to keep ", tokens);
    if (tokens == tokens_) return;
    if (!can_truncate(tokens)) refuse_to_truncate(tokens);
    if (!in_prompt_ && tokens_ - tokens <= can_take_back()) return drop_newest(tokens_ - tokens);
    reopen(tokens);
  }

  // What the layer holds now. Throws std::bad_alloc.
  Checkpoint<HeadType> checkpoint() const {
    return {context_->ledger, index(),       std::span<const HeadType>(heads_),        states_, queries_,
            second_,          budget_share_, {tokens_, opened_, unscored_, in_prompt_}};
  }

  // Holds again what it held then, any number of times, whatever has been added or has left since. The
  // checkpoint may be of another sequence of this cache: that forks it. Throws Error on another layer's, and
  // std::bad_alloc, both with nothing changed.
  void rollback(const Checkpoint<HeadType>& checkpoint) {
    check_own(checkpoint);
    restore(Checkpoint<HeadType>(checkpoint));
  }
  // The same in two parts, for several layers that go back together.
  void check_own(const Checkpoint<HeadType>& checkpoint) const {
    if (!checkpoint.is_of(context_->ledger, index()))
      fail("rollback: the checkpoint is of layer ", checkpoint.layer(), " of a cache, this is layer ",
           index(), " of perhaps another; give a layer its own");
  }
  void restore(Checkpoint<HeadType>&& held) noexcept {
    queries_ = std::move(held.queries_);
    second_ = std::move(held.second_);
    heads_.swap(held.heads_);
    states_.swap(held.states_);
    budget_share_ = std::move(held.budget_share_);
    tokens_ = held.progress_.tokens;
    opened_ = held.progress_.opened;
    unscored_ = held.progress_.unscored;
    in_prompt_ = held.progress_.in_prompt;
  }
  // Holds what a layer of the same shape in a cache of the same policy holds, sink logits included, counted
  // here. Throws std::bad_alloc with nothing changed.
  void copy_from(const LayerCache& other) {
    std::vector<float> sinks = other.sinks_;
    Checkpoint<HeadType> held = other.checkpoint();
    held.count_in(context_->ledger);
    restore(std::move(held));
    sinks_ = std::move(sinks);
  }

  // Attention sinks as logits of their own: one per query head, which takes part in every softmax and has no
  // value. [query_heads], or empty for none. Throws Error on another count or values that are not finite.
  void set_sink_logits(std::span<const float> sinks) {
    detail::check_sinks(shape_, sinks);
    sinks_.assign(sinks.begin(), sinks.end());
  }

  const void* identity() const noexcept { return context_->ledger.get(); }  // see KvCache::identity
  std::size_t tokens() const noexcept { return tokens_; }                   // seen so far
  bool in_prompt() const noexcept { return in_prompt_; }
  std::size_t index() const noexcept { return context_->first_layer + number_; }  // in the model
  const LayerShape& shape() const noexcept { return shape_; }
  const BudgetShare& budget_share() const noexcept { return budget_share_; }
  const HeadType& head(std::size_t h) const noexcept { return heads_[h]; }
  const HeadState& state(std::size_t h) const noexcept { return states_[h]; }
  std::size_t bytes() const noexcept {
    std::size_t sum = 0;
    for (const auto& head : heads_) sum += head.bytes();
    return sum + queries_.bytes() + second_.bytes();
  }

 private:
  friend class KvCache<P>;

  detail::LayerView<HeadType> view() {
    return {shape_, std::span<HeadType>(heads_), *context_->workspace, context_->executor,
            sinks_.empty() ? nullptr : sinks_.data()};
  }

  void check(const RowView& q, const RowView& k, const RowView& v, const OutView& out,
             std::size_t tokens) const {
    detail::check_queries(shape_, q, out, tokens);
    check_entries(k, v, tokens);
  }
  void check_entries(const RowView& k, const RowView& v, std::size_t tokens) const {
    detail::check_entries(shape_, "k", k, tokens, context_->policy.key_type);
    detail::check_entries(shape_, "v", v, tokens, context_->policy.value_type);
  }

  void drop_newest(std::size_t tokens) noexcept {
    for (std::size_t h = 0; h < heads_.size(); ++h)
      detail::take_back(heads_[h], states_[h], tokens, context_->policy.score.decay());
    tokens_ -= tokens;
  }
  // The prompt goes on behind its first `tokens`, of which nothing has been compressed since they came.
  void reopen(std::size_t tokens) noexcept {
    const std::size_t dropped = tokens_ - tokens;
    for (auto& head : heads_) {
      head.keep_nothing();
      head.truncate(head.size() - dropped);
      head.shrink();
    }
    const std::size_t begun = second_.begun();  // a second reading keeps no queries
    const std::size_t read = std::min(tokens_, begun) - std::min(tokens, begun);
    queries_.drop_last(read);
    unscored_ -= std::min(unscored_, read);
    second_.truncate(tokens);
    budget_share_ = {};
    tokens_ = tokens;
    opened_ = std::min(opened_, tokens);
    in_prompt_ = true;
  }
  [[noreturn]] void refuse_to_truncate(std::size_t tokens) const {
    fail("truncate: asked to take ", tokens_ - tokens, " of ", tokens_,
         " tokens back; entries have left since, ", can_take_back(),
         " can be taken back (at most rollback=", context_->policy.areas.rollback,
         ", and none from before a prompt that goes on); raise rollback=, or read the tokens to keep again");
  }

  // Room for so many tokens of a prompt, which may be its first: what is there then is taken back no more.
  void open_prompt(std::size_t tokens) {
    for (std::size_t h = 0; h < heads_.size(); ++h) {
      straighten(context_->policy, heads_[h], states_[h]);
      heads_[h].reserve(heads_[h].size() + tokens);
    }
    if (!in_prompt_) {
      for (auto& head : heads_) head.keep_nothing();
      opened_ = tokens_;
    }
    in_prompt_ = true;
  }

  // Appends whole tokens behind what is there and attends; the score follows when it is due.
  void take_chunk(const RowView& q, const RowView& k, const RowView& v, const OutView& out) {
    const bool kept = context_->policy.keeps_queries() && !second_.reading();
    if (kept) queries_.reserve(q.tokens);
    open_prompt(q.tokens);
    append(k, v);
    float* local = kept ? queries_.append(q) : nullptr;
    const auto layer = view();
    if (second_.reading()) {
      const std::vector<float> every(q.tokens, 1.0f);
      return detail::attend_prompt(
          layer, q, out,
          {every, 1.0f, kernels::ColumnStatistic::maximum, second_.maxima(), second_.entries()});
    }
    if (kept && scores_at_end()) {
      unscored_ += q.tokens;
      return detail::attend_prompt(layer, q, out, {}, local);
    }
    const std::vector<float> weight = detail::row_weights(context_->policy.score, q.tokens);
    detail::attend_prompt(layer, q, out,
                          {weight, static_cast<float>(context_->policy.score.weight(q.tokens))}, local);
  }

  // Whether the last rows of a prompt, whose queries are kept, are all that counts for the score. (Bounded
  // mode, which asks for it after every chunk, never keeps queries.)
  bool scores_at_end() const noexcept {
    return P::ScoreType::needs_probabilities && context_->policy.score.tail_rows() != 0;
  }
  void bring_scores_up() {
    if (unscored_ != 0) detail::score_tail(prompt_layer(), unscored_);
    unscored_ = 0;
  }

  detail::PromptLayer<P, HeadType> prompt_layer() const {
    auto* self = const_cast<LayerCache*>(this);
    return {context_->policy,
            {shape_, std::span<const HeadType>(heads_), tokens_, queries_, context_->ropes[number_].get(),
             sinks_.empty() ? nullptr : sinks_.data(), context_->executor, second_.noted()},
            std::span<HeadType>(self->heads_),
            std::span<HeadState>(self->states_)};
  }

  // A budget that shares out over all layers counts the bytes of all of them.
  BudgetQuery budget_query(std::size_t tokens) const {
    const detail::HeadDims& dims = shares_over_layers() ? context_->dims : own_dims_;
    return detail::budget_query(context_->policy, index(), heads_.size(), dims, tokens);
  }

  // The layers of this cache share a budget.
  bool shares_over_layers() const noexcept { return shares_budget() && context_->geometry.layers > 1; }

  // What others have got of the budget when the layers with these numbers (none: this one) end their prompt;
  // nothing where they do not share it, or are not all of this cache.
  std::optional<BudgetProgress> progress_of(std::span<const std::size_t> numbers) const {
    const std::size_t own[] = {index()};
    if (numbers.empty()) numbers = own;
    const auto is_here = [&](std::size_t number) {
      return number >= context_->first_layer && number - context_->first_layer < context_->geometry.layers;
    };
    if (!shares_over_layers() || !std::all_of(numbers.begin(), numbers.end(), is_here)) return std::nullopt;
    return detail::progress_of(context_->of(sequence_), numbers, tokens_);
  }

  // When all layers have ended a prompt, what competed in it is of no more interest.
  void take_share(BudgetShare&& share) noexcept {
    budget_share_ = std::move(share);
    const std::span<LayerCache> all = context_->of(sequence_);
    if (std::all_of(all.begin(), all.end(),
                    [&](const LayerCache& layer) { return layer.budget_share_.tokens == tokens_; }))
      for (LayerCache& layer : all) layer.budget_share_.forget_values();
  }

  // A decoded token ends the prompt of its layer; of all layers where they share a budget and have the same
  // prompt.
  void finish_with_others() {
    std::vector<LayerCache*> all;
    if (shares_budget())
      for (LayerCache& layer : context_->of(sequence_))
        if (layer.in_prompt_ && layer.tokens_ == tokens_) all.push_back(&layer);
    if (all.size() == context_->geometry.layers) return finish_together(std::span<LayerCache* const>(all));
    finish_prompt();
  }

  // Room for the entries of so many decoded tokens and for taking them back. Throws std::bad_alloc with
  // nothing changed that matters.
  void make_room_for(std::size_t tokens) {
    const P& policy = context_->policy;
    const std::size_t mean = detail::following_mean(policy, tokens_ + tokens);
    for (std::size_t h = 0; h < heads_.size(); ++h) {
      const Division division = grown(policy, states_[h], mean);
      reserve_for_decode(heads_[h], states_[h], division, tokens);
      detail::reserve_undo(policy, heads_[h], states_[h], division, tokens_, tokens);
    }
  }
  // The token that makes `seen` of them comes, the call's last but `left` - 1: a head grows to what a budget
  // of a share gives then.
  void begin_token(std::size_t h, std::size_t seen, std::size_t left) noexcept {
    if (left <= context_->policy.areas.rollback) heads_[h].keep_scores();
    detail::begin_step(heads_[h], states_[h]);
    const std::size_t mean = detail::following_mean(context_->policy, seen);
    if (!grows(states_[h], mean)) return;
    const Division before = states_[h].division;
    grow(context_->policy, heads_[h], states_[h], mean);
    detail::note_division(heads_[h], before);
  }

  // Bounded mode: a prompt goes on with heads at their capacities.
  void fit_to_budget() {
    auto query = budget_query(tokens_);
    const auto layer = prompt_layer();
    PromptRatings ratings;
    detail::rate_prompt(layer, query, ratings);
    query.importance = ratings.for_budget;
    const auto division =
        detail::divide_all(context_->policy, query, context_->policy.budget.capacities(query));
    (void)detail::fit_heads(layer, std::span<const Division>(division), {});
  }

  void append(const RowView& k, const RowView& v) noexcept {
    const std::size_t first = tokens_;
    detail::run_items(context_->executor, k.tokens >= detail::kCopiesFrom, heads_.size(), [&](std::size_t h) {
      for (std::size_t t = 0; t < k.tokens; ++t) append_row(k, v, h, t, first + t);
    });
    tokens_ += k.tokens;
  }
  // Token `t` of these to one head.
  void append_row(const RowView& k, const RowView& v, std::size_t h, std::size_t t,
                  std::size_t position) noexcept {
    const std::size_t dim = shape_.head_dim;
    float key[kMaxHeadDim];
    float value[kMaxHeadDim];
    detail::read_row(k.row(t, h), k.type, dim, 1.0f, key);
    detail::read_row(v.row(t, h), v.type, dim, 1.0f, value);
    heads_[h].append(key, value, static_cast<std::uint32_t>(position));
  }

  LayerContext<P>* context_;
  std::size_t number_;
  std::size_t sequence_;
  LayerShape shape_;
  detail::HeadDims own_dims_{shape_.head_dim};
  std::vector<HeadType> heads_;    // [kv_heads]
  std::vector<HeadState> states_;  // [kv_heads]
  QueryRows queries_;              // of the prompt's newest tokens, if the policy keeps them
  SecondReading second_;           // of the prompt
  BudgetShare budget_share_;       // of a budget over layers
  std::vector<float> sinks_;       // [query_heads] or empty
  std::size_t tokens_ = 0;
  std::size_t opened_ = 0;    // before the newest prompt
  std::size_t unscored_ = 0;  // the newest tokens of a prompt that its scores still lack
  bool in_prompt_ = true;
  detail::DecodeScratch scratch_;
};

}  // namespace zeromerge
