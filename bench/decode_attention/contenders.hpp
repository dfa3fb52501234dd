// Who computes the same step of attention: the library's full cache in every stored type, and llama.cpp's
// kernels in every form.
#pragma once

#include <memory>

#include "support/ggml_peer.hpp"
#include "zeromerge/cache/cache.hpp"

namespace bench {

// One layer's keys, values and one token's queries.
struct StepData {
  std::vector<float> q;
  std::vector<float> k;
  std::vector<float> v;

  StepData(const Shape& s, std::size_t entries)
      : q(random_numbers(s.query_heads * s.head_dim, 1)),
        k(random_numbers(entries * s.kv_heads * s.head_dim, 2)),
        v(random_numbers(entries * s.kv_heads * s.head_dim, 3)) {}
};

// The library: as many layers as given, attended in rotation.
class OurStep {
 public:
  OurStep(const Shape& shape, const StepData& data, zeromerge::StorageType type, std::size_t layers,
          std::size_t threads);
  void step();
  const std::vector<float>& output() const { return out_; }
  std::size_t layer_bytes() const;

 private:
  using Policy = zeromerge::Full<zeromerge::any_storage>;
  Shape shape_;
  const StepData& data_;
  zeromerge::KvCache<Policy> cache_;
  std::vector<float> out_;
  std::size_t next_ = 0;
};

// What a layer stores of an entry, in all heads: keys and values with their scales.
double entry_bytes(const Shape& shape, zeromerge::StorageType type);

}  // namespace bench
