#include "decode_attention/contenders.hpp"

#include "support/pool.hpp"

namespace bench {
namespace {

zeromerge::Full<zeromerge::any_storage> policy_of(zeromerge::StorageType type) {
  zeromerge::Full<zeromerge::any_storage> policy;
  policy.key_type = policy.value_type = type;
  return policy;
}

zeromerge::Geometry geometry_of(const Shape& s, std::size_t layers) {
  zeromerge::Geometry g;
  g.layers = layers;
  g.query_heads = s.query_heads;
  g.kv_heads = s.kv_heads;
  g.head_dim = s.head_dim;
  return g;
}

}  // namespace

OurStep::OurStep(const Shape& shape, const StepData& data, zeromerge::StorageType type, std::size_t layers,
                 std::size_t threads)
    : shape_(shape),
      data_(data),
      cache_(geometry_of(shape, layers), policy_of(type), {.executor = executor_of(threads)}),
      out_(data.q.size()) {
  const std::size_t entries = data.k.size() / (shape.kv_heads * shape.head_dim);
  for (std::size_t l = 0; l < layers; ++l) {
    cache_.layer(l).extend(zeromerge::rows(data.k.data(), entries, shape.kv_heads, shape.head_dim),
                           zeromerge::rows(data.v.data(), entries, shape.kv_heads, shape.head_dim));
    cache_.layer(l).finish_prompt();
  }
}

void OurStep::step() {
  cache_.layer(next_).attend(zeromerge::rows(data_.q.data(), 1, shape_.query_heads, shape_.head_dim),
                             zeromerge::out_rows(out_.data(), 1, shape_.query_heads, shape_.head_dim));
  next_ = (next_ + 1) % cache_.geometry().layers;
}

double entry_bytes(const Shape& shape, zeromerge::StorageType type) {
  const auto dim = static_cast<double>(shape.head_dim);
  const double row = [&] {  // of keys, and the same of values
    switch (type) {
      case zeromerge::StorageType::f32:
        return 4.0 * dim;
      case zeromerge::StorageType::q8:
        return dim + 4.0;
      case zeromerge::StorageType::q4:
        return dim / 2.0 + dim / 8.0;
      default:
        return 2.0 * dim;
    }
  }();
  return 2.0 * row * static_cast<double>(shape.kv_heads);
}

}  // namespace bench
