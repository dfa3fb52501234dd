// A cache whose policy was chosen at run time: virtual calls per layer and call, never per entry.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "zeromerge/cache/cache.hpp"

namespace zeromerge {

// What a layer held at one moment; see Checkpoint.
class AnyCheckpoint {
 public:
  virtual ~AnyCheckpoint() = default;
  virtual std::size_t tokens() const = 0;
  virtual std::size_t bytes() const = 0;
  // Whose it is: a cache knows its own, and with it the type behind this one.
  const void* cache() const noexcept { return cache_; }

 protected:
  explicit AnyCheckpoint(const void* cache) : cache_(cache) {}

 private:
  const void* cache_;
};

// One layer of one sequence; see LayerCache for what the calls do and throw.
class AnyLayer {
 public:
  virtual ~AnyLayer() = default;
  virtual void prefill(const RowView& q, const RowView& k, const RowView& v, const OutView& out) = 0;
  virtual void decode(const RowView& q, const RowView& k, const RowView& v, const OutView& out) = 0;
  virtual void attend(const RowView& q, const OutView& out, float* lse = nullptr) = 0;
  virtual void extend(const RowView& k, const RowView& v) = 0;
  virtual void finish_prompt() = 0;
  virtual bool shares_budget() const = 0;  // the parts of finish_prompt, for finish_together
  virtual void rate_prompt(PromptRatings& ratings) = 0;
  virtual void take_back(const PromptRatings& ratings) = 0;
  virtual std::size_t index() const = 0;
  virtual const LayerShape& shape() const = 0;
  virtual std::vector<std::size_t> capacities(const PromptRatings& ratings,
                                              const LayerList& layers = {}) const = 0;
  virtual void finish_prompt(const PromptRatings& ratings, std::span<const std::size_t> capacities) = 0;
  virtual void begin_second_reading() = 0;
  virtual void end_second_reading() = 0;
  virtual void set_sink_logits(std::span<const float> sinks) = 0;
  virtual void clear() = 0;
  virtual bool can_truncate() const = 0;
  virtual bool can_truncate(std::size_t tokens) const = 0;
  virtual std::size_t can_take_back() const = 0;
  virtual void truncate(std::size_t tokens) = 0;
  virtual std::unique_ptr<AnyCheckpoint> checkpoint() const = 0;
  virtual void rollback(const AnyCheckpoint& checkpoint) = 0;
  virtual std::size_t tokens() const = 0;
  virtual bool in_prompt() const = 0;
  virtual std::size_t bytes() const = 0;

  // Looking into a head: its entries by slot. What a policy does not keep reads as 0 (mass: 1). A policy that
  // keeps a prompt's queries until it ends brings the scores up to date then.
  virtual std::size_t entries(std::size_t head) const = 0;
  virtual const HeadState& state(std::size_t head) const = 0;
  virtual std::size_t head_bytes(std::size_t head) const = 0;
  virtual void read_key(std::size_t head, std::size_t slot, float* out) const = 0;    // [head_dim]
  virtual void read_value(std::size_t head, std::size_t slot, float* out) const = 0;  // [head_dim]
  virtual float mass(std::size_t head, std::size_t slot) const = 0;
  virtual float score(std::size_t head, std::size_t slot) const = 0;
  virtual std::size_t position(std::size_t head, std::size_t slot) const = 0;
};

class AnyCache {
 public:
  virtual ~AnyCache() = default;
  virtual AnyLayer& layer(std::size_t layer, std::size_t sequence = 0) = 0;
  virtual void finish_prompt(std::size_t sequence = 0) = 0;
  virtual void clear(std::size_t sequence = 0) = 0;
  // A sequence without all but its first `tokens`, in all layers or none; see KvCache::truncate.
  virtual bool can_truncate(std::size_t tokens, std::size_t sequence = 0) const = 0;
  virtual void truncate(std::size_t tokens, std::size_t sequence = 0) = 0;
  // A sequence in all layers as it is now, and back to it, or forked into another; see KvCache::rollback.
  std::vector<std::unique_ptr<AnyCheckpoint>> checkpoint(std::size_t sequence = 0) {
    std::vector<std::unique_ptr<AnyCheckpoint>> all;
    for (std::size_t l = 0; l < geometry().layers; ++l) all.push_back(layer(l, sequence).checkpoint());
    return all;
  }
  virtual void rollback(const std::vector<std::unique_ptr<AnyCheckpoint>>& checkpoint,
                        std::size_t sequence = 0) = 0;
  // A cache of its own that holds a copy of a sequence; see KvCache::fork.
  virtual std::unique_ptr<AnyCache> fork(std::size_t sequence = 0) const = 0;
  virtual const Geometry& geometry() const = 0;
  // Tokens that can be taken back from what is compressed: rollback= of the policy.
  virtual std::size_t rollback_tokens() const = 0;
  virtual CacheBytes bytes() const = 0;
  virtual std::size_t workspace_bytes() const = 0;
  virtual void set_executor(Executor executor) = 0;
  const std::string& spec() const noexcept { return spec_; }  // the text it was made from

 protected:
  explicit AnyCache(std::string spec) : spec_(std::move(spec)) {}

 private:
  std::string spec_;
};

namespace detail {

template <class P>
class CheckpointAdapter final : public AnyCheckpoint {
 public:
  explicit CheckpointAdapter(const LayerCache<P>& layer)
      : AnyCheckpoint(layer.identity()), held_(layer.checkpoint()) {}
  std::size_t tokens() const override { return held_.tokens(); }
  std::size_t bytes() const override { return held_.bytes(); }
  const Checkpoint<typename LayerCache<P>::HeadType>& held() const noexcept { return held_; }

 private:
  Checkpoint<typename LayerCache<P>::HeadType> held_;
};

// Throws Error unless the checkpoint is of the cache with this identity, whose policy is P.
template <class P>
const Checkpoint<typename LayerCache<P>::HeadType>& held_by(const AnyCheckpoint* checkpoint,
                                                            const void* cache) {
  if (checkpoint == nullptr) fail("rollback: a layer has no checkpoint (null pointer)");
  if (checkpoint->cache() != cache) fail("rollback: the checkpoint is of another cache");
  return static_cast<const CheckpointAdapter<P>*>(checkpoint)->held();
}

template <class P>
class LayerAdapter final : public AnyLayer {
 public:
  explicit LayerAdapter(LayerCache<P>& layer) : layer_(layer) {}
  void prefill(const RowView& q, const RowView& k, const RowView& v, const OutView& out) override {
    layer_.prefill(q, k, v, out);
  }
  void decode(const RowView& q, const RowView& k, const RowView& v, const OutView& out) override {
    layer_.decode(q, k, v, out);
  }
  void attend(const RowView& q, const OutView& out, float* lse) override { layer_.attend(q, out, lse); }
  void extend(const RowView& k, const RowView& v) override { layer_.extend(k, v); }
  void finish_prompt() override { layer_.finish_prompt(); }
  bool shares_budget() const override { return layer_.shares_budget(); }
  void rate_prompt(PromptRatings& ratings) override { layer_.rate_prompt(ratings); }
  void take_back(const PromptRatings& ratings) override { layer_.take_back(ratings); }
  std::size_t index() const override { return layer_.index(); }
  const LayerShape& shape() const override { return layer_.shape(); }
  std::vector<std::size_t> capacities(const PromptRatings& ratings, const LayerList& layers) const override {
    return layer_.capacities(ratings, layers);
  }
  void finish_prompt(const PromptRatings& ratings, std::span<const std::size_t> capacities) override {
    layer_.finish_prompt(ratings, capacities);
  }
  void begin_second_reading() override { layer_.begin_second_reading(); }
  void end_second_reading() override { layer_.end_second_reading(); }
  void set_sink_logits(std::span<const float> sinks) override { layer_.set_sink_logits(sinks); }
  void clear() override { layer_.clear(); }
  bool can_truncate() const override { return layer_.can_truncate(); }
  bool can_truncate(std::size_t tokens) const override { return layer_.can_truncate(tokens); }
  std::size_t can_take_back() const override { return layer_.can_take_back(); }
  void truncate(std::size_t tokens) override { layer_.truncate(tokens); }
  std::unique_ptr<AnyCheckpoint> checkpoint() const override {
    return std::make_unique<CheckpointAdapter<P>>(layer_);
  }
  void rollback(const AnyCheckpoint& checkpoint) override {
    layer_.rollback(held_by<P>(&checkpoint, layer_.identity()));
  }
  std::size_t tokens() const override { return layer_.tokens(); }
  bool in_prompt() const override { return layer_.in_prompt(); }
  std::size_t bytes() const override { return layer_.bytes(); }
  std::size_t entries(std::size_t head) const override { return layer_.head(head).size(); }
  const HeadState& state(std::size_t head) const override { return layer_.state(head); }
  std::size_t head_bytes(std::size_t head) const override { return layer_.head(head).bytes(); }
  void read_key(std::size_t head, std::size_t slot, float* out) const override {
    layer_.head(head).read_key(slot, out);
  }
  void read_value(std::size_t head, std::size_t slot, float* out) const override {
    layer_.head(head).read_value(slot, out);
  }
  float mass(std::size_t head, std::size_t slot) const override {
    const float* mass = layer_.head(head).mass();
    return mass != nullptr ? mass[slot] : 1.0f;
  }
  float score(std::size_t head, std::size_t slot) const override {
    const float* score = layer_.head(head).score();
    return score != nullptr ? score[slot] : 0.0f;
  }
  std::size_t position(std::size_t head, std::size_t slot) const override {
    return layer_.head(head).position()[slot];
  }

 private:
  LayerCache<P>& layer_;
};

template <class P>
class CacheAdapter final : public AnyCache {
 public:
  CacheAdapter(std::string spec, const Geometry& geometry, P policy, CacheOptions options)
      : CacheAdapter(std::move(spec), KvCache<P>(geometry, std::move(policy), std::move(options))) {}
  CacheAdapter(std::string spec, KvCache<P> cache) : AnyCache(std::move(spec)), cache_(std::move(cache)) {
    for (std::size_t s = 0; s < cache_.sequences(); ++s)
      for (std::size_t l = 0; l < cache_.geometry().layers; ++l) layers_.emplace_back(cache_.layer(l, s));
  }
  AnyLayer& layer(std::size_t number, std::size_t sequence) override {
    (void)cache_.layer(number, sequence);  // checks the range
    return layers_[sequence * cache_.geometry().layers + number];
  }
  void finish_prompt(std::size_t sequence) override { cache_.finish_prompt(sequence); }
  void clear(std::size_t sequence) override { cache_.clear(sequence); }
  bool can_truncate(std::size_t tokens, std::size_t sequence) const override {
    return cache_.can_truncate(tokens, sequence);
  }
  void truncate(std::size_t tokens, std::size_t sequence) override { cache_.truncate(tokens, sequence); }
  void rollback(const std::vector<std::unique_ptr<AnyCheckpoint>>& checkpoint,
                std::size_t sequence) override {
    std::vector<const typename KvCache<P>::CheckpointType*> layers;
    for (const auto& layer : checkpoint) layers.push_back(&held_by<P>(layer.get(), cache_.identity()));
    cache_.rollback(std::span<const typename KvCache<P>::CheckpointType* const>(layers), sequence);
  }
  std::unique_ptr<AnyCache> fork(std::size_t sequence) const override {
    return std::make_unique<CacheAdapter>(spec(), cache_.fork(sequence));
  }
  const Geometry& geometry() const override { return cache_.geometry(); }
  std::size_t rollback_tokens() const override { return cache_.policy().areas.rollback; }
  CacheBytes bytes() const override { return cache_.bytes(); }
  std::size_t workspace_bytes() const override { return cache_.workspace_bytes(); }
  void set_executor(Executor executor) override { cache_.set_executor(std::move(executor)); }

 private:
  KvCache<P> cache_;
  std::vector<LayerAdapter<P>> layers_;
};

}  // namespace detail
}  // namespace zeromerge
