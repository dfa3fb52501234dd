// The whole cache: layers times independent sequences, one policy, one executor, one scratch memory.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "zeromerge/cache/layer.hpp"

namespace zeromerge {

struct CacheOptions {
  std::size_t sequences = 1;     // independent, side by side
  Executor executor = serial();  // where the work of a call runs
  std::size_t chunk = 512;       // bounded mode: tokens of a prompt taken at once
  std::shared_ptr<const Rope>
      rope{};                   // the model's, for policies that turn queries (replay, refit); else null
  std::size_t first_layer = 0;  // the model's number of layer 0 of this cache (budgets may depend on it)
  std::shared_ptr<Workspace>
      workspace{};  // share it between caches that are used one at a time; null: an own one
  std::vector<std::shared_ptr<const Rope>> ropes{};  // [layers], where layers have their own; empty: `rope`
};

// Held now and the most at once, in bytes: keys, values and everything kept per entry. Scratch is
// workspace_bytes().
struct CacheBytes {
  std::size_t held;
  std::size_t peak;
};

namespace detail {

inline void check_executor(const Executor& executor) {
  if (!executor)
    fail(
        "cache: the executor is empty, so that no work could run; leave CacheOptions::executor out for the "
        "calling thread, or give threads(n)");
}

// The RoPE of every layer. Throws Error if one is missing that is needed, or does not fit its layer's heads.
inline std::vector<std::shared_ptr<const Rope>> ropes_of(const Geometry& geometry,
                                                         const CacheOptions& options, bool needed) {
  std::vector<std::shared_ptr<const Rope>> ropes = options.ropes;
  if (ropes.empty()) ropes.assign(geometry.layers, options.rope);
  if (ropes.size() != geometry.layers)
    fail("cache: expected a RoPE for each of ", geometry.layers,
         " layers in CacheOptions::ropes, or none, got ", ropes.size());
  for (std::size_t l = 0; l < geometry.layers; ++l) {
    if (ropes[l]) ropes[l]->check_fits(geometry.shape(l).head_dim);
    if (needed && !ropes[l])
      fail(
          "cache: the policy turns queries to other positions (replay, expected attention, refit) and layer ",
          l, " has no RoPE; give the model's RoPE as CacheOptions::rope, or ropes");
  }
  return ropes;
}

}  // namespace detail

// Calls on one cache come one at a time; its executor parallelises inside a call. Movable, not copyable.
template <class P>
class KvCache {
 public:
  // Throws Error on an impossible geometry or, where it can be known without a prompt, an impossible budget.
  KvCache(const Geometry& geometry, P policy, CacheOptions options = {}) {
    geometry.validate();
    if (options.sequences == 0 || options.chunk == 0) fail("cache: sequences and chunk must be at least 1");
    detail::check_executor(options.executor);
    auto ropes = detail::ropes_of(geometry, options, policy.needs_rope());
    if (policy.bounded &&
        (policy.rates_prompts() || policy.keeps_queries() || needs_all_layers(policy.budget)))
      fail(
          "cache: the policy looks at a whole prompt or at all layers (a score of whole prompts, refit, a "
          "budget over layers), bounded mode never has them; use one or the other");
    if (policy.areas.block == 0) fail("cache: a block of 0 decoded tokens never leaves; use at least 1");
    detail::HeadDims dims;
    for (std::size_t l = 0; l < geometry.layers; ++l) {
      const LayerShape shape = geometry.shape(l);
      dims.add(shape.head_dim, shape.kv_heads);
    }
    detail::check_bytes(policy, dims);
    if (!options.workspace) options.workspace = std::make_shared<Workspace>();
    sequences_ = options.sequences;
    context_.reset(new LayerContext<P>{geometry, std::move(policy), std::move(options.executor),
                                       std::move(options.workspace), options.chunk, std::move(ropes),
                                       options.first_layer, std::move(dims)});
    for (std::size_t s = 0; s < sequences_; ++s)
      for (std::size_t l = 0; l < geometry.layers; ++l) layers_.emplace_back(context_.get(), l, s);
    context_->layers = layers_;
  }

  KvCache(KvCache&&) noexcept = default;
  KvCache& operator=(
      KvCache&& other) noexcept {  // by exchange: layers must not outlive the ledger they count in
    std::swap(sequences_, other.sequences_);
    context_.swap(other.context_);
    layers_.swap(other.layers_);
    return *this;
  }

  LayerCache<P>& layer(std::size_t number, std::size_t sequence = 0) {
    return layers_[place(number, sequence)];
  }
  const LayerCache<P>& layer(std::size_t number, std::size_t sequence = 0) const {
    return layers_[place(number, sequence)];
  }

  // Ends the prompt of a sequence in all layers; see LayerCache::finish_prompt. A budget that shares out over
  // layers compares all of them, so that the peak is the whole prompt's cache in every layer.
  void finish_prompt(std::size_t sequence = 0) {
    std::vector<LayerCache<P>*> all;
    for (std::size_t l = 0; l < geometry().layers; ++l) all.push_back(&layer(l, sequence));
    finish_together(std::span<LayerCache<P>* const>(all));
  }
  void clear(std::size_t sequence = 0) {
    for (std::size_t l = 0; l < geometry().layers; ++l) layer(l, sequence).clear();
  }

  // A sequence without all but its first `tokens`, in all layers; see LayerCache::truncate. All layers forget
  // them or, on Error, none. Layers that have fewer of the newest tokens than others (a step that was given
  // up half way) end up alike. Where one can only go back to its prompt all do.
  bool can_truncate(std::size_t tokens, std::size_t sequence = 0) const {
    return way_back(tokens, sequence) != WayBack::none;
  }
  void truncate(std::size_t tokens, std::size_t sequence = 0) {
    const WayBack way = way_back(tokens, sequence);
    for (std::size_t l = 0; l < geometry().layers; ++l)
      if (way == WayBack::none && !layer(l, sequence).can_truncate(tokens))
        layer(l, sequence).truncate(tokens);
    if (way == WayBack::none)
      fail("truncate: asked to keep ", tokens,
           " tokens; some layers can only take tokens back within their "
           "window (rollback=), some only go back to their prompt; read the tokens to keep again");
    for (std::size_t l = 0; l < geometry().layers; ++l)
      if (way == WayBack::newest)
        layer(l, sequence).truncate(tokens);
      else
        layer(l, sequence).reopen(tokens);
  }

  // A sequence in all layers as it is now, and back to it, or forked into another sequence; see
  // LayerCache::rollback. All layers go back or, on Error and std::bad_alloc, none.
  using CheckpointType = Checkpoint<typename LayerCache<P>::HeadType>;
  std::vector<CheckpointType> checkpoint(std::size_t sequence = 0) const {
    std::vector<CheckpointType> all;
    for (std::size_t l = 0; l < geometry().layers; ++l) all.push_back(layer(l, sequence).checkpoint());
    return all;
  }
  void rollback(const std::vector<CheckpointType>& checkpoint, std::size_t sequence = 0) {
    std::vector<const CheckpointType*> layers;
    for (const CheckpointType& layer : checkpoint) layers.push_back(&layer);
    rollback(std::span<const CheckpointType* const>(layers), sequence);
  }
  void rollback(std::span<const CheckpointType* const> checkpoint, std::size_t sequence = 0) {
    if (checkpoint.size() != geometry().layers)
      fail("rollback: the checkpoint has ", checkpoint.size(), " layers, the cache ", geometry().layers);
    for (std::size_t l = 0; l < checkpoint.size(); ++l) layer(l, sequence).check_own(*checkpoint[l]);
    std::vector<CheckpointType> copies;
    for (const CheckpointType* held : checkpoint) copies.emplace_back(*held);
    for (std::size_t l = 0; l < copies.size(); ++l) layer(l, sequence).restore(std::move(copies[l]));
  }

  // A cache of its own, made as this one is, whose one sequence holds what `sequence` holds here, bit for
  // bit: entries, what the policy knows of them, a prompt that has not ended, sink logits. Executor and
  // scratch memory are shared, so that the two are used one at a time. Throws std::bad_alloc, with nothing
  // changed.
  KvCache fork(std::size_t sequence = 0) const {
    (void)place(0, sequence);  // the range
    CacheOptions options{.executor = context_->executor, .chunk = context_->chunk};
    options.first_layer = context_->first_layer;
    options.workspace = context_->workspace;
    options.ropes = context_->ropes;
    KvCache copy(geometry(), policy(), std::move(options));
    for (std::size_t l = 0; l < geometry().layers; ++l) copy.layer(l).copy_from(layer(l, sequence));
    return copy;
  }

  const Geometry& geometry() const noexcept { return context_->geometry; }
  const P& policy() const noexcept { return context_->policy; }
  std::size_t sequences() const noexcept { return sequences_; }
  CacheBytes bytes() const noexcept { return {context_->ledger->held(), context_->ledger->peak()}; }
  std::size_t workspace_bytes() const noexcept { return context_->workspace->bytes(); }
  // Throws Error, with nothing changed, on an empty one.
  void set_executor(Executor executor) {
    detail::check_executor(executor);
    context_->executor = std::move(executor);
  }
  // No other cache has it or will have it while a checkpoint of this one is held.
  const void* identity() const noexcept { return context_->ledger.get(); }

 private:
  // How a sequence forgets its newest tokens: within every layer's window, or its prompt goes on from there.
  enum class WayBack { none, newest, prompt };
  WayBack way_back(std::size_t tokens, std::size_t sequence) const {
    bool newest = true, prompt = true;
    for (std::size_t l = 0; l < geometry().layers; ++l) {
      const LayerCache<P>& at = layer(l, sequence);
      if (tokens > at.tokens()) return WayBack::none;
      newest = newest && at.tokens() - tokens <= at.can_take_back();
      prompt = prompt && at.can_truncate();
    }
    return newest ? WayBack::newest : prompt ? WayBack::prompt : WayBack::none;
  }

  std::size_t place(std::size_t number, std::size_t sequence) const {
    if (number >= geometry().layers || sequence >= sequences_)
      fail("cache: it has ", geometry().layers, " layers and ", sequences_, " sequences, asked for layer ",
           number, " of sequence ", sequence);
    return sequence * geometry().layers + number;
  }

  std::size_t sequences_ = 0;
  std::unique_ptr<LayerContext<P>> context_;
  std::vector<LayerCache<P>> layers_;  // [sequences][layers]; destroyed before the ledger they count in
};

}  // namespace zeromerge
