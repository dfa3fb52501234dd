// The heads of one layer of one sequence on the device, as the host sees them: where their memory is, and
// what they hold as long as a prompt is going on. What a decoded step changes, only the device knows; the
// host asks when the next prompt begins.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "zeromerge/cuda/head_copy.hpp"
#include "zeromerge/cuda/head_plan.hpp"
#include "zeromerge/cuda/parts.hpp"
#include "zeromerge/cuda/prompt_score.hpp"
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
        states_(parts->geometry.kv_heads),
        tail_(&parts->ledger) {}

  bool in_prompt() const noexcept { return in_prompt_; }
  std::size_t prompt_tokens() const noexcept { return states_[0].tokens; }
  std::span<const HeadState> states() const noexcept { return states_; }
  std::span<const HeadRows> rows() const noexcept { return slab_.heads(); }
  std::size_t bytes() const noexcept { return slab_.bytes() + tail_.bytes(); }
  // Entries for which the largest head has room.
  std::size_t most() const noexcept {
    std::size_t most = 0;
    for (const HeadRows& head : slab_.heads()) most = std::max<std::size_t>(most, head.room);
    return most;
  }

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
      parts_->launches.attend({view(), tokens.q, out, own, sinks, tokens.type, out_type, tokens.tokens,
                               logit_scale(*parts_), g.logit_softcap},
                              extent_of(*parts_, tokens.tokens, largest()), stream);
    if (own != nullptr) lse = own;
    if (parts_->policy.fields.score) add_columns(*parts_, view(), tokens, lse, largest(), stream);
    if (parts_->policy.window != 0) tail_.append(tokens.q, lse, tokens.tokens, stream);
  }

  // Brings every head to its division. rated: by_prompt of the divisions counts, for rate() has been called.
  // Waits for the stream, since memory is given back.
  void compress(std::span<const Division> divisions, bool rated, Stream stream) {
    shrink(divisions, rated, stream);
    tail_.clear();
    in_prompt_ = false;
  }
  // The same while the prompt goes on; nothing happens as long as all of it fits.
  void fit(std::span<const Division> divisions, Stream stream) {
    bool fits = true;
    for (std::size_t h = 0; h < states_.size(); ++h) fits = fits && states_[h].size <= divisions[h].capacity;
    if (!fits) shrink(divisions, false, stream);
  }

  // Whether rate() can be asked.
  bool can_rate() const noexcept {
    return parts_->policy.rule.rates_keys != 0 || (parts_->policy.window != 0 && tail_.tokens() != 0);
  }
  // Ratings of all entries stay on the device for compress().
  void rate(Stream stream) { rate_entries(*parts_, *scratch_, view(), tail_, largest(), stream); }
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

  // Holds what these say, [kv_heads], in the form in which steps go on; waits.
  void put(std::span<const HeadCopy> heads, Stream stream) {
    std::vector<HeadState> states;
    std::vector<std::size_t> rooms;
    for (const HeadCopy& head : heads) {
      states.push_back(head.state);
      rooms.push_back(room_for(head.state, parts_->longest));
    }
    Slab target(parts_->form, rooms, &parts_->ledger);
    install(target, std::vector<HeadState>(states_.size()), stream);
    for (std::size_t h = 0; h < heads.size(); ++h) write_entries(heads[h], h, stream);
    copy_in(device_states_, states.data(), states.size() * sizeof(HeadState), stream);
    synchronise(stream);
    states_ = std::move(states);
    tail_.clear();
    in_prompt_ = false;
  }

  // All of it at one moment, to come back to; waits.
  struct Snapshot {
    Slab slab;
    std::vector<HeadState> states;
    QueryTail tail;
    bool in_prompt = true;
    std::size_t bytes() const noexcept { return slab.bytes() + tail.bytes(); }
  };
  Snapshot snapshot(Stream stream) {
    if (!in_prompt_) read_states(stream);
    Snapshot now{slab_.copy(stream), states_, tail_.copy(stream), in_prompt_};
    synchronise(stream);
    return now;
  }
  void restore(const Snapshot& then, Stream stream) {
    Slab slab = then.slab.copy(stream);
    QueryTail tail = then.tail.copy(stream);
    if (slab.bytes() != 0)
      install(slab, then.states, stream);
    else
      clear(stream);
    tail_ = std::move(tail);
    in_prompt_ = then.in_prompt;
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

  void shrink(std::span<const Division> divisions, bool rated, Stream stream) {
    std::vector<HeadPlan> plans;
    std::vector<std::size_t> rooms;
    for (std::size_t h = 0; h < states_.size(); ++h) {
      plans.push_back(plan_head(states_[h], divisions[h], parts_->policy.rule, rated));
      rooms.push_back(room_for(plans.back().after, parts_->longest));
    }
    Slab target(parts_->form, rooms, &parts_->ledger);
    std::vector<SelectHead> select;
    std::vector<CompactHead> compact;
    std::vector<HeadState> after;
    for (std::size_t h = 0; h < plans.size(); ++h) {
      plans[h].compact.from = slab_.bytes() != 0 ? slab_.heads()[h] : HeadRows{};
      plans[h].compact.to = target.heads()[h];
      select.push_back(plans[h].select);
      compact.push_back(plans[h].compact);
      after.push_back(plans[h].after);
    }
    if (slab_.bytes() != 0) rewrite(select, compact, rated, stream);
    install(target, after, stream);
  }

  // Rows go through the kernel that appends tokens, so that they are stored as tokens are.
  void write_entries(const HeadCopy& from, std::size_t h, Stream stream) {
    const std::size_t n = from.entries();
    const Buffer<float> keys(from.keys.size());
    const Buffer<float> values(from.values.size());
    copy_in(keys.data(), from.keys.data(), keys.bytes(), stream);
    copy_in(values.data(), from.values.data(), values.bytes(), stream);
    const PromptHeads one{rows_ + h, device_states_ + h, 1, parts_->group(), parts_->head_dim()};
    parts_->launches.append(
        one, {nullptr, keys.data(), values.data(), Element::f32, static_cast<std::uint32_t>(n)}, stream);
    const HeadRows& to = slab_.heads()[h];
    const auto put = [&](auto* field, const auto& numbers) {
      if (field != nullptr) copy_in(field, numbers.data(), n * sizeof(*field), stream);
    };
    std::vector<float> bias;
    for (const float mass : from.mass) bias.push_back(parts_->policy.rule.alpha * std::log(mass));
    put(to.position, from.position);
    put(to.score, from.score);
    put(to.mass, from.mass);
    put(to.bias, bias);
    synchronise(stream);  // the buffers end here
  }
  std::uint32_t largest() const noexcept {
    std::uint32_t most = 0;
    for (const HeadState& s : states_) most = std::max(most, s.size);
    return most;
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
      compact.push_back(move_head(states_[h], parts_->policy.rule));
      compact.back().from = slab_.heads()[h];
      compact.back().to = target.heads()[h];
      after[h].ring = after[h].ring_next = 0;
    }
    if (!compact.empty() && largest() != 0) rewrite({}, compact, false, stream);
    install(target, after, stream);
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
