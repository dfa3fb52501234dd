// The cache on a device: layers times independent sequences, one policy, with the meaning of
// zeromerge::KvCache. Keys, values and all that decides lie in device memory; calls put work on the caller's
// stream and return.
//
//   cuda::KvCache<ZeroMerge<f16>> cache(geometry, policy, {.sequences = 8, .longest = 32768});
//   cache.prefill(layer, sequence, q, k, v, out, stream);     // a prompt, in any number of calls
//   cache.finish_prompt(sequence, stream);                    // waits: memory is given back
//   cache.decode(layer, batch, q, k, v, out, stream);         // a token for each sequence of the batch: no
//   allocation,
//                                                             // no waiting, can be captured and replayed
// Values are not looked at on the way: what is not finite or not storable is the caller's to avoid.
#pragma once

#include <cstddef>
#include <memory>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "zeromerge/cache/any_cache.hpp"
#include "zeromerge/cuda/checkpoint.hpp"
#include "zeromerge/cuda/decode_scratch.hpp"
#include "zeromerge/cuda/head_copy.hpp"
#include "zeromerge/cuda/head_of.hpp"
#include "zeromerge/cuda/heads.hpp"
#include "zeromerge/cuda/rows.hpp"

namespace zeromerge::cuda {

struct CacheOptions {
  std::size_t sequences = 1;  // independent, of any lengths
  std::size_t longest =
      0;  // tokens of the longest sequence, prompt and decoded; needed where everything is kept.
          // Given, captured steps stay valid whatever prompts come; else see plan_version()
  std::size_t first_layer = 0;  // the model's number of layer 0 of this cache (budgets may depend on it)
  std::size_t chunk = 512;      // bounded mode: tokens of a prompt taken at once
  bool host_prompts = false;    // prompts come compressed, by upload(): then the policy may do with them
                                // whatever the host can, and only its decode step has to run on the device
};

// Sequences that decode together: row r of a call is sequence number r of these.
class Batch {
 public:
  std::span<const std::uint32_t> sequences() const noexcept { return host_; }
  std::size_t size() const noexcept { return host_.size(); }
  const std::uint32_t* device() const noexcept { return device_.data(); }

 private:
  template <class P>
  friend class KvCache;
  explicit Batch(std::vector<std::uint32_t> sequences) : host_(std::move(sequences)), device_(host_.size()) {}
  std::vector<std::uint32_t> host_;
  Buffer<std::uint32_t> device_;
};

// Calls on one cache come one at a time and on one stream, or on streams that the caller orders. Movable.
template <class P>
class KvCache {
 public:
  // Throws Error on an impossible geometry, a policy that a device cannot follow, an impossible budget.
  KvCache(const Geometry& geometry, P policy, CacheOptions options = {});
  KvCache(KvCache&&) noexcept = default;
  KvCache& operator=(KvCache&&) = delete;

  // Takes tokens of a prompt: q [tokens][query_heads][head_dim], k and v [tokens][kv_heads][head_dim] (keys
  // after RoPE), contiguous and of one type. Writes their causal attention over all that the sequence holds
  // to out. Waits for the stream where heads have to grow and when a prompt begins.
  void prefill(std::size_t layer, std::size_t sequence, const RowView& q, const RowView& k, const RowView& v,
               const OutRows& out, Stream stream) {
    detail::check_contiguous("q", q, q.tokens, geometry().query_heads, geometry().head_dim);
    zeromerge::detail::check_shape("out", out, q.tokens, geometry().query_heads, geometry().head_dim);
    take(layer, sequence, q, k, v, out, nullptr, stream);
  }
  // The same for an engine whose own attention has run: lse [tokens][query_heads], the natural log of every
  // row's sum of exponentials over the causal row, is what scores need.
  void observe(std::size_t layer, std::size_t sequence, const RowView& q, const RowView& k, const RowView& v,
               const float* lse, Stream stream) {
    if (lse == nullptr) fail("observe: lse is null; give the log-sum-exp of every row, or call prefill");
    take(layer, sequence, q, k, v, {}, lse, stream);
  }

  // Ends a prompt: brings every head to its budget. Waits for the stream.
  void finish_prompt(std::size_t sequence, Stream stream) {
    for (std::size_t l = 0; l < geometry().layers; ++l) finish_prompt(l, sequence, stream);
  }
  void finish_prompt(std::size_t layer, std::size_t sequence, Stream stream);

  // Sequences, each once, that decode together from now on. Allocates; to be made once.
  Batch batch(const std::vector<std::size_t>& sequences, Stream stream) const;
  Batch batch(Stream stream) const {
    std::vector<std::size_t> all(sequences_);
    std::iota(all.begin(), all.end(), std::size_t{0});
    return batch(all, stream);
  }

  // Takes one token for each sequence of the batch and writes its attention over everything its sequence
  // holds, itself included: q, out [batch][query_heads][head_dim], k, v [batch][kv_heads][head_dim]. Ends
  // prompts that have not ended, which allocates and waits; else it only launches. A head that keeps
  // everything and is full takes no more.
  void decode(std::size_t layer, const Batch& batch, const RowView& q, const RowView& k, const RowView& v,
              const OutRows& out, Stream stream, float* lse = nullptr) {
    detail::check_contiguous("k", k, batch.size(), geometry().kv_heads, geometry().head_dim);
    detail::check_contiguous("v", v, batch.size(), geometry().kv_heads, geometry().head_dim);
    detail::check_types(q, k, v);
    check_step(layer, batch, q, out);
    for (const std::uint32_t s : batch.sequences())
      if (heads(layer, s).in_prompt()) finish_prompt(layer, s, stream);
    DecodeStep step = step_of(layer, batch, q, out, lse);
    step.k = k.data;
    step.v = v.data;
    parts_->launches.decode(step, scratch_->plan(batch.size()), stream);
  }
  // Attention alone: nothing changes.
  void attend(std::size_t layer, const Batch& batch, const RowView& q, const OutRows& out, Stream stream,
              float* lse = nullptr) {
    check_step(layer, batch, q, out);
    for (const std::uint32_t s : batch.sequences()) {
      const Heads& all = heads(layer, s);
      if (all.rows().empty()) fail("attend: sequence ", s, " holds nothing; give it a prompt first");
      scratch_->reserve(all.most());
    }
    parts_->launches.look(step_of(layer, batch, q, out, lse), scratch_->plan(batch.size()), stream);
  }

  // Grows by one when what steps were captured with has been replaced: capture them again.
  std::size_t plan_version() const noexcept { return scratch_->version(); }

  // Logits that take part in every softmax without a value: [layers][query_heads] on the device, the
  // caller's, or null.
  void set_sink_logits(const float* sinks) noexcept { sinks_ = sinks; }

  // Takes a sequence over from a cache of the host whose prompt has ended: entries, what belongs to them and
  // how each head is divided. Decoding goes on from there as the host's would. Waits for the stream. Throws
  // Error, with nothing changed, unless the host's cache has this shape and all its layers can be taken.
  void upload(std::size_t sequence, zeromerge::AnyCache& from, std::size_t from_sequence, Stream stream);
  // One layer of it, [kv_heads]: what head() has given, or head_of() of a host's layer.
  void put(std::size_t layer, std::size_t sequence, std::span<const HeadCopy> heads, Stream stream);

  // A sequence in all layers as it is now, and back to it any number of times, or forked into another one;
  // captured steps stay valid. Wait for the stream. A checkpoint is of this cache and must not outlive it;
  // its bytes count in bytes().
  Checkpoint checkpoint(std::size_t sequence, Stream stream);
  void rollback(const Checkpoint& checkpoint, std::size_t sequence, Stream stream);

  void clear(std::size_t sequence, Stream stream) {
    for (std::size_t l = 0; l < geometry().layers; ++l) heads(l, sequence).clear(stream);
  }

  // A head as it is now, for looking into; waits.
  HeadCopy head(std::size_t layer, std::size_t sequence, std::size_t h, Stream stream) {
    Heads& all = heads(layer, sequence);
    if (!all.in_prompt()) all.read_states(stream);
    if (h >= geometry().kv_heads) fail("cuda: there are ", geometry().kv_heads, " kv heads, asked for ", h);
    return all.rows().empty()
               ? HeadCopy{}
               : copy_head(all.rows()[h], all.states()[h], parts_->policy, geometry().head_dim, stream);
  }
  // Tokens that a layer of a sequence has seen; waits.
  std::size_t tokens(std::size_t layer, std::size_t sequence, Stream stream) {
    return head(layer, sequence, 0, stream).state.tokens;
  }

  const Geometry& geometry() const noexcept { return parts_->geometry; }
  const P& policy() const noexcept { return policy_; }
  std::size_t sequences() const noexcept { return sequences_; }
  CacheBytes bytes() const noexcept { return {parts_->ledger.held(), parts_->ledger.peak()}; }
  std::size_t workspace_bytes() const noexcept { return scratch_->bytes() + prompt_->bytes(); }
  // Gives back what only prompts need; to be called when the stream has done them.
  void release_prompt_workspace() { *prompt_ = PromptScratch(); }

 private:
  Heads& heads(std::size_t layer, std::size_t sequence) {
    if (layer >= geometry().layers || sequence >= sequences_)
      fail("cuda: the cache has ", geometry().layers, " layers and ", sequences_,
           " sequences, asked for layer ", layer, " of sequence ", sequence);
    return heads_[layer * sequences_ + sequence];
  }
  const float* sinks(std::size_t layer) const noexcept {
    return sinks_ == nullptr ? nullptr : sinks_ + layer * geometry().query_heads;
  }
  void take(std::size_t layer, std::size_t sequence, const RowView& q, const RowView& k, const RowView& v,
            const OutRows& out, const float* lse, Stream stream);
  void check_step(std::size_t layer, const Batch& batch, const RowView& q, const OutRows& out) {
    (void)heads(layer, 0);  // the range
    detail::check_contiguous("q", q, batch.size(), geometry().query_heads, geometry().head_dim);
    zeromerge::detail::check_shape("out", out, batch.size(), geometry().query_heads, geometry().head_dim);
  }
  DecodeStep step_of(std::size_t layer, const Batch& batch, const RowView& q, const OutRows& out, float* lse);
  void fit_to_budget(std::size_t layer, Heads& all, Stream stream);
  std::vector<Division> division(std::size_t layer, Heads& all, std::span<const std::size_t> each) const;
  std::vector<std::size_t> capacities(std::size_t layer, Heads& all, bool& rated, Stream stream);
  std::vector<std::vector<float>> importance(Heads& all, Stream stream);
  BudgetQuery budget_query(std::size_t layer, std::size_t tokens) const {
    return zeromerge::detail::budget_query(policy_, first_layer_ + layer, geometry().kv_heads,
                                           geometry().head_dim, tokens);
  }
  std::vector<std::size_t> ask_budget(BudgetQuery query) const;
  std::size_t bound() const;

  P policy_;
  std::size_t sequences_;
  std::size_t first_layer_;
  std::size_t chunk_;
  bool host_prompts_;
  std::unique_ptr<CacheParts> parts_;  // shared by address
  std::unique_ptr<PromptScratch> prompt_;
  std::unique_ptr<DecodeScratch> scratch_;
  Buffer<HeadRows> rows_;     // [layers][sequences][kv_heads]
  Buffer<HeadState> states_;  // likewise
  std::vector<Heads> heads_;  // [layers][sequences]
  const float* sinks_ = nullptr;
};

}  // namespace zeromerge::cuda

#include "zeromerge/cuda/cache.inl"
