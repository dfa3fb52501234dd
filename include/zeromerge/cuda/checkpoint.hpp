// What a sequence held on the device at one moment, copied on the device.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "zeromerge/cuda/heads.hpp"

namespace zeromerge::cuda {

// Made by KvCache::checkpoint; movable, not copyable.
class Checkpoint {
 public:
  std::size_t bytes() const noexcept {
    std::size_t sum = 0;
    for (const Heads::Snapshot& layer : layers_) sum += layer.bytes();
    return sum;
  }

 private:
  template <class P>
  friend class KvCache;
  Checkpoint(const CacheParts* cache, std::vector<Heads::Snapshot> layers)
      : cache_(cache), layers_(std::move(layers)) {}

  const CacheParts* cache_;              // whose it is
  std::vector<Heads::Snapshot> layers_;  // [layers]
};

}  // namespace zeromerge::cuda
