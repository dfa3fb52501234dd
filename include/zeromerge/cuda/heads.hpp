// The heads of one layer of one sequence on the device, as the host sees them: where their memory is, and
// what they hold as long as a prompt is going on. What a decoded step changes, only the device knows; the
// host asks when the next prompt begins.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "zeromerge/cuda/parts.hpp"
#include "zeromerge/cuda/query_tail.hpp"

namespace zeromerge::cuda {

class Heads {
 public:
  // rows, states: this layer's and sequence's places in the cache's device arrays, [kv_heads] each.
  Heads(CacheParts* parts, PromptScratch* scratch, HeadRows* rows, HeadState* states)
      : parts_(parts),
        scratch_(scratch),
        rows_(rows),
        device_states_(states),
        states_(parts->geometry.kv_heads) {}

  bool in_prompt() const noexcept { return in_prompt_; }
  std::size_t prompt_tokens() const noexcept { return states_[0].tokens; }
  std::span<const HeadState> states() const noexcept { return states_; }
  std::span<const HeadRows> rows() const noexcept { return slab_.heads(); }
  std::size_t bytes() const noexcept { return slab_.bytes(); }
  // Entries for which the largest head has room.
  std::size_t most() const noexcept {
    std::size_t most = 0;
    for (const HeadRows& head : slab_.heads()) most = std::max<std::size_t>(most, head.room);
    return most;
  }
  std::size_t window_tokens() const noexcept { return tail_.tokens(); }

  // A call of a prompt. out: null where the engine has attended by itself and gives lse
  // [tokens][query_heads]. What can be refused is refused, and memory found, before anything changes.
  void take(const PromptTokens& tokens, void* out, Element out_type, const float* lse, const float* sinks,
            Stream stream) {
    const Geometry& g = parts_->geometry;
    if (parts_->policy.window != 0)
      tail_.expect(tokens.type, g.query_heads, g.head_dim, parts_->policy.window);
    float* own = lse == nullptr ? scratch_->lse.get(tokens.tokens * g.query_heads) : nullptr;
    if (!in_prompt_) read_states(stream);
    make_room(tokens.tokens, stream);
    in_prompt_ = true;
    parts_->launches.append(view(), tokens, stream);
    for (HeadState& s : states_) s.size += tokens.tokens, s.tokens += tokens.tokens;
    if (own != nullptr)
      parts_->launches.attend(
          {view(), tokens.q, out, own, sinks, tokens.type, out_type, tokens.tokens, scale(), g.logit_softcap},
          extent(tokens.tokens), stream);
    if (own != nullptr) lse = own;
    if (parts_->policy.fields.score) add_columns(tokens, lse, stream);
    if (parts_->policy.window != 0) tail_.append(tokens.q, lse, tokens.tokens, stream);
  }

  // Brings every head to its division. rated: by_prompt of the divisions counts, for rate() has been called.
  // Waits for the stream, since memory is given back.
  void compress(std::span<const Division> divisions, bool rated, Stream stream) {
    std::vector<SelectHead> select;
    std::vector<CompactHead> compact;
    std::vector<HeadState> after;
    std::vector<std::size_t> rooms;
    for (const Division& d : divisions) rooms.push_back(room_of(d));
    for (std::size_t h = 0; h < states_.size(); ++h)
      rooms[h] = std::max<std::size_t>(rooms[h], kept_of(h, divisions[h]));
    Slab target(parts_->form, rooms, &parts_->ledger);
    for (std::size_t h = 0; h < states_.size(); ++h)
      plan_head(h, divisions[h], rated, target.heads()[h], select, compact, after);
    if (slab_.bytes() != 0) rewrite(select, compact, rated, stream);
    install(target, after, stream);
    tail_.clear();
    in_prompt_ = false;
  }

  // Ratings of all entries by the prompt's last queries stay on the device for compress().
  void rate(Stream stream) {
    const std::size_t stride = largest();
    float* plain = scratch_->ratings.get(states_.size() * stride);
    float* pooled = scratch_->pooled.get(states_.size() * stride);
    const auto asked = static_cast<std::uint32_t>(std::min(tail_.tokens(), stride));
    const float weight = 1.0f / static_cast<float>(asked * parts_->group());
    ColumnArguments a{view(),       tail_.q(), tail_.lse(), plain,   static_cast<std::uint32_t>(stride),
                      tail_.type(), asked,     asked,       scale(), parts_->geometry.logit_softcap,
                      0.0f,         weight,    0.0f};
    parts_->launches.columns(a, extent(asked), stream);
    const PoolArguments pool{device_states_,
                             plain,
                             pooled,
                             static_cast<std::uint32_t>(stride),
                             parts_->kv_heads(),
                             static_cast<std::uint32_t>(parts_->policy.window),
                             static_cast<std::uint32_t>(std::max<std::size_t>(1, parts_->policy.pooled)),
                             parts_->policy.pooled_by_maximum ? 1u : 0u};
    launch(pool_ratings<kPoolThreads>, {detail::blocks_of(stride, kPoolThreads), parts_->kv_heads()},
           kPoolThreads, 0, stream, pool);
  }
  // The same on the host: [kv_heads][entries].
  std::vector<std::vector<float>> ratings(Stream stream) const {
    std::vector<std::vector<float>> all;
    for (std::size_t h = 0; h < states_.size(); ++h) {
      all.emplace_back(states_[h].size);
      copy_out(all.back().data(), scratch_->pooled.data() + h * largest(), all.back().size() * 4, stream);
    }
    synchronise(stream);
    return all;
  }

  void clear(Stream stream) {
    synchronise(stream);
    slab_ = Slab();
    std::fill(states_.begin(), states_.end(), HeadState{});
    tail_.clear();
    in_prompt_ = true;
  }

  // What the device holds by now; waits.
  void read_states(Stream stream) {
    copy_out(states_.data(), device_states_, states_.size() * sizeof(HeadState), stream);
    synchronise(stream);
  }

 private:
  PromptHeads view() const noexcept {
    return {rows_, device_states_, parts_->kv_heads(), parts_->group(), parts_->head_dim()};
  }
  float scale() const noexcept { return parts_->geometry.attention_scale() * kLog2E; }
  std::uint32_t largest() const noexcept {
    std::uint32_t most = 0;
    for (const HeadState& s : states_) most = std::max(most, s.size);
    return most;
  }
  PromptExtent extent(std::size_t tokens) const noexcept {
    return {static_cast<unsigned>(tokens) * parts_->group(), largest()};
  }

  void add_columns(const PromptTokens& tokens, const float* lse, Stream stream) {
    const std::size_t tail = parts_->policy.tail_rows;
    const auto counting =
        static_cast<std::uint32_t>(tail == 0 ? tokens.tokens : std::min<std::size_t>(tokens.tokens, tail));
    const float log2_decay = parts_->policy.rule.log2_decay;
    const ColumnArguments a{view(),
                            tokens.q,
                            lse,
                            nullptr,
                            0,
                            tokens.type,
                            tokens.tokens,
                            counting,
                            scale(),
                            parts_->geometry.logit_softcap,
                            log2_decay,
                            1.0f,
                            std::exp2(log2_decay * static_cast<float>(tokens.tokens))};
    parts_->launches.columns(a, extent(tokens.tokens), stream);
  }

  // Entries at which a head of this division is full, the newest included.
  std::size_t room_of(const Division& d) const noexcept {
    const std::size_t full = d.capacity == kUnlimited ? parts_->longest : d.capacity + 1;
    return parts_->longest != 0 ? std::min(full, parts_->longest) : full;
  }
  // Entries that a head keeps under this division, and room for one more.
  std::size_t kept_of(std::size_t h, const Division& d) const noexcept {
    return std::min<std::size_t>(states_[h].size, d.capacity) + (d.capacity == kUnlimited ? 0 : 1);
  }

  // Heads grow while a prompt goes on; a turned ring is put into the order of arrival on the way.
  void make_room(std::size_t tokens, Stream stream) {
    bool fits = slab_.bytes() != 0;
    std::vector<std::size_t> rooms;
    for (std::size_t h = 0; h < states_.size(); ++h) {
      const HeadState& s = states_[h];
      const std::size_t room = slab_.bytes() != 0 ? slab_.heads()[h].room : 0;
      const std::size_t needed = s.size + tokens;
      fits = fits && s.ring == 0 && needed <= room;
      const std::size_t grown = in_prompt_ ? room + room / 2 : 0;
      rooms.push_back(std::max(needed, std::min(grown, std::max(needed, parts_->longest))));
    }
    if (fits) return;
    Slab target(parts_->form, rooms, &parts_->ledger);
    std::vector<CompactHead> compact;
    std::vector<HeadState> after = states_;
    for (std::size_t h = 0; h < states_.size() && slab_.bytes() != 0; ++h) {
      compact.push_back(whole(h, target.heads()[h]));
      after[h].ring = after[h].ring_next = 0;
    }
    if (!compact.empty() && largest() != 0) rewrite({}, compact, false, stream);
    install(target, after, stream);
  }

  CompactHead whole(std::size_t h, const HeadRows& to) const noexcept {
    const HeadState& s = states_[h];
    CompactHead c{};
    c.from = slab_.bytes() != 0 ? slab_.heads()[h] : HeadRows{};
    c.to = to;
    c.front = c.last = c.size = s.size;
    if (s.ring == 0) return c;
    c.places = s.recent;
    c.ring = s.capacity - (parts_->policy.rule.block - 1) - s.recent;
    c.ring_next = s.ring_next;
    return c;
  }

  void plan_head(std::size_t h, const Division& d, bool rated, const HeadRows& to,
                 std::vector<SelectHead>& select, std::vector<CompactHead>& compact,
                 std::vector<HeadState>& after) const {
    HeadState s = states_[h];
    const auto u32 = [](std::size_t n) {
      return n == kUnlimited ? kKeepsAll : static_cast<std::uint32_t>(n);
    };
    s.capacity = u32(d.capacity);
    s.sinks = u32(d.sinks);
    s.residual = u32(d.residual);
    s.recent = u32(d.recent);
    s.residuals = std::min(s.residuals, s.residual);
    CompactHead c = whole(h, to);
    SelectHead ask{};
    if (s.size > s.capacity) {
      c.front = s.sinks + s.residuals;
      c.last = s.size - s.recent;
      c.kept = u32(d.context());
      c.leavers = c.last - c.front - c.kept;
      c.groups = std::min(s.residual, c.leavers);
      c.fresh = std::min(s.residual - s.residuals, c.groups);
      c.sinks = s.sinks;
      c.residual = s.residual;
      ask = {c.front, c.last, c.kept, 0};
      if (rated) {
        ask.by_rating = u32(d.by_prompt);
        ask.by_score = c.kept - ask.by_rating;
      }
      s.residuals += c.fresh;
      s.size = c.size = c.front + c.fresh + c.kept + s.recent;
    }
    select.push_back(ask);
    compact.push_back(c);
    after.push_back(s);
  }

  void rewrite(const std::vector<SelectHead>& select, const std::vector<CompactHead>& compact, bool rated,
               Stream stream) {
    const std::uint32_t stride = largest();
    const std::uint32_t count = parts_->kv_heads();
    unsigned entries = 0;
    unsigned groups = 0;
    for (const CompactHead& c : compact) {
      entries = std::max(entries, c.size);
      groups = std::max(groups, c.groups);
    }
    std::uint32_t* order = nullptr;
    if (!select.empty()) {
      order = scratch_->order.get(std::size_t{count} * stride);
      SelectHead* asked = scratch_->select.get(count);
      copy_in(asked, select.data(), count * sizeof(SelectHead), stream);
      launch_select(
          {rows_, device_states_, asked, rated ? scratch_->pooled.data() : nullptr,
           scratch_->chosen.get(std::size_t{count} * stride), order, parts_->policy.rule, stride, count},
          stream);
    }
    CompactHead* heads = scratch_->compact.get(count);
    copy_in(heads, compact.data(), count * sizeof(CompactHead), stream);
    const CompactArguments a{heads,
                             order,
                             stride,
                             count,
                             parts_->head_dim(),
                             parts_->policy.rule.alpha,
                             parts_->policy.rule.sum_on_merge};
    parts_->launches.gather(a, entries, stream);
    parts_->launches.fold(a, groups, stream);
  }

  // The target becomes what the heads are; waits, for the memory before is given back.
  void install(Slab& target, const std::vector<HeadState>& states, Stream stream) {
    copy_in(rows_, target.heads().data(), target.heads().size() * sizeof(HeadRows), stream);
    copy_in(device_states_, states.data(), states.size() * sizeof(HeadState), stream);
    synchronise(stream);
    slab_ = std::move(target);
    states_ = states;
  }

  CacheParts* parts_;
  PromptScratch* scratch_;
  HeadRows* rows_;
  HeadState* device_states_;
  std::vector<HeadState> states_;  // [kv_heads] as of the last call of a prompt
  Slab slab_;
  QueryTail tail_;
  bool in_prompt_ = true;
};

}  // namespace zeromerge::cuda
