// A device cache whose policy a text chooses, cache/presets.hpp says which: full, streaming, zeromerge, h2o,
// snapkv, pyramidkv, adakv and what their keys allow, as far as a device can follow (cuda/rule.hpp). A budget
// that is a share is one of the prompt: heads do not grow while tokens are decoded, as they do on the host.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "zeromerge/cache/named_policy.hpp"
#include "zeromerge/cuda/cache.hpp"

namespace zeromerge::cuda {

// See KvCache for what the calls do and throw.
class AnyCache {
 public:
  virtual ~AnyCache() = default;
  virtual void prefill(std::size_t layer, std::size_t sequence, const RowView& q, const RowView& k,
                       const RowView& v, const OutRows& out, Stream stream) = 0;
  virtual void observe(std::size_t layer, std::size_t sequence, const RowView& q, const RowView& k,
                       const RowView& v, const float* lse, Stream stream) = 0;
  virtual void finish_prompt(std::size_t sequence, Stream stream) = 0;
  virtual void finish_prompt(std::size_t layer, std::size_t sequence, Stream stream) = 0;
  virtual Batch batch(const std::vector<std::size_t>& sequences, Stream stream) const = 0;
  virtual void decode(std::size_t layer, const Batch& batch, const RowView& q, const RowView& k,
                      const RowView& v, const OutRows& out, Stream stream, float* lse = nullptr) = 0;
  virtual void attend(std::size_t layer, const Batch& batch, const RowView& q, const OutRows& out,
                      Stream stream, float* lse = nullptr) = 0;
  virtual void upload(std::size_t sequence, zeromerge::AnyCache& from, std::size_t from_sequence,
                      Stream stream) = 0;
  virtual void put(std::size_t layer, std::size_t sequence, std::span<const HeadCopy> heads,
                   Stream stream) = 0;
  virtual Checkpoint checkpoint(std::size_t sequence, Stream stream) = 0;
  virtual void rollback(const Checkpoint& checkpoint, std::size_t sequence, Stream stream) = 0;
  virtual void clear(std::size_t sequence, Stream stream) = 0;
  virtual void set_sink_logits(const float* sinks) = 0;
  virtual HeadCopy head(std::size_t layer, std::size_t sequence, std::size_t h, Stream stream) = 0;
  virtual std::size_t plan_version() const = 0;
  virtual const Geometry& geometry() const = 0;
  virtual std::size_t sequences() const = 0;
  virtual CacheBytes bytes() const = 0;
  virtual std::size_t workspace_bytes() const = 0;
  virtual void release_prompt_workspace() = 0;
  const std::string& spec() const noexcept { return spec_; }  // the text it was made from

 protected:
  explicit AnyCache(std::string spec) : spec_(std::move(spec)) {}

 private:
  std::string spec_;
};

namespace detail {

template <class P>
class CacheAdapter final : public AnyCache {
 public:
  CacheAdapter(std::string spec, const Geometry& geometry, P policy, const CacheOptions& options)
      : AnyCache(std::move(spec)), cache_(geometry, std::move(policy), options) {}
  void prefill(std::size_t layer, std::size_t sequence, const RowView& q, const RowView& k, const RowView& v,
               const OutRows& out, Stream stream) override {
    cache_.prefill(layer, sequence, q, k, v, out, stream);
  }
  void observe(std::size_t layer, std::size_t sequence, const RowView& q, const RowView& k, const RowView& v,
               const float* lse, Stream stream) override {
    cache_.observe(layer, sequence, q, k, v, lse, stream);
  }
  void finish_prompt(std::size_t sequence, Stream stream) override { cache_.finish_prompt(sequence, stream); }
  void finish_prompt(std::size_t layer, std::size_t sequence, Stream stream) override {
    cache_.finish_prompt(layer, sequence, stream);
  }
  Batch batch(const std::vector<std::size_t>& sequences, Stream stream) const override {
    return cache_.batch(sequences, stream);
  }
  void decode(std::size_t layer, const Batch& batch, const RowView& q, const RowView& k, const RowView& v,
              const OutRows& out, Stream stream, float* lse) override {
    cache_.decode(layer, batch, q, k, v, out, stream, lse);
  }
  void attend(std::size_t layer, const Batch& batch, const RowView& q, const OutRows& out, Stream stream,
              float* lse) override {
    cache_.attend(layer, batch, q, out, stream, lse);
  }
  void upload(std::size_t sequence, zeromerge::AnyCache& from, std::size_t from_sequence,
              Stream stream) override {
    cache_.upload(sequence, from, from_sequence, stream);
  }
  void put(std::size_t layer, std::size_t sequence, std::span<const HeadCopy> heads, Stream stream) override {
    cache_.put(layer, sequence, heads, stream);
  }
  Checkpoint checkpoint(std::size_t sequence, Stream stream) override {
    return cache_.checkpoint(sequence, stream);
  }
  void rollback(const Checkpoint& checkpoint, std::size_t sequence, Stream stream) override {
    cache_.rollback(checkpoint, sequence, stream);
  }
  void clear(std::size_t sequence, Stream stream) override { cache_.clear(sequence, stream); }
  void set_sink_logits(const float* sinks) override { cache_.set_sink_logits(sinks); }
  HeadCopy head(std::size_t layer, std::size_t sequence, std::size_t h, Stream stream) override {
    return cache_.head(layer, sequence, h, stream);
  }
  std::size_t plan_version() const override { return cache_.plan_version(); }
  const Geometry& geometry() const override { return cache_.geometry(); }
  std::size_t sequences() const override { return cache_.sequences(); }
  CacheBytes bytes() const override { return cache_.bytes(); }
  std::size_t workspace_bytes() const override { return cache_.workspace_bytes(); }
  void release_prompt_workspace() override { cache_.release_prompt_workspace(); }

 private:
  KvCache<P> cache_;
};

}  // namespace detail

// Throws Error unless the text names a policy that a device can follow, with valid keys and values; the error
// names the remedy. A template so that the many kernels are compiled only where this is called.
template <class Cache = AnyCache>
std::unique_ptr<Cache> make_cache(const std::string& text, const Geometry& geometry,
                                  const CacheOptions& options = {}) {
  return zeromerge::detail::with_named_policy(text, [&](auto policy) -> std::unique_ptr<Cache> {
    using P = decltype(policy);
    return std::make_unique<detail::CacheAdapter<P>>(text, geometry, std::move(policy), options);
  });
}

#if defined(ZEROMERGE_CUDA_COMPILED)
extern template std::unique_ptr<AnyCache> make_cache<AnyCache>(const std::string&, const Geometry&,
                                                               const CacheOptions&);
#endif

}  // namespace zeromerge::cuda
