#include "prefill/contenders.hpp"

#include "support/pool.hpp"

namespace bench {

using zeromerge::rows;

OurPrompt::OurPrompt(const Shape& shape, const PromptData& data, std::size_t tokens, std::size_t chunk,
                     const std::string& spec, std::size_t threads)
    : shape_(shape),
      data_(data),
      past_(tokens - chunk),
      chunk_(chunk),
      out_(chunk * shape.query_heads * shape.head_dim) {
  zeromerge::Geometry g;
  g.layers = 1;
  g.query_heads = shape.query_heads;
  g.kv_heads = shape.kv_heads;
  g.head_dim = shape.head_dim;
  cache_ = zeromerge::make_cache(spec, g, {.executor = executor_of(threads)});
  cache_->layer(0).extend(rows(data.k.data(), past_, g.kv_heads, g.head_dim),
                          rows(data.v.data(), past_, g.kv_heads, g.head_dim));
}

void OurPrompt::step() {
  const auto& [query_heads, kv_heads, dim] = shape_;
  auto& layer = cache_->layer(0);
  layer.truncate(past_);  // the memory stays: what its first touch costs is the system's affair
  layer.prefill(rows(data_.q.data() + past_ * query_heads * dim, chunk_, query_heads, dim),
                rows(data_.k.data() + past_ * kv_heads * dim, chunk_, kv_heads, dim),
                rows(data_.v.data() + past_ * kv_heads * dim, chunk_, kv_heads, dim),
                zeromerge::out_rows(out_.data(), chunk_, query_heads, dim));
}

}  // namespace bench
