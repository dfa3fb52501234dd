// What the layers of a device cache share: what they are made of, and memory that prompts need beside the
// heads.
#pragma once

#include <algorithm>
#include <cstddef>

#include "zeromerge/cuda/launches.hpp"
#include "zeromerge/cuda/rule.hpp"
#include "zeromerge/cuda/slab.hpp"

namespace zeromerge::cuda {

// What the layers of a cache share.
struct CacheParts {
  Geometry geometry;
  DevicePolicy policy;
  Launches launches;
  std::size_t longest;  // tokens of the longest sequence, 0: not known
  SlabForm form;
  ByteLedger ledger{};

  std::uint32_t head_dim() const noexcept { return static_cast<std::uint32_t>(geometry.head_dim); }
  std::uint32_t kv_heads() const noexcept { return static_cast<std::uint32_t>(geometry.kv_heads); }
  std::uint32_t group() const noexcept { return static_cast<std::uint32_t>(geometry.group()); }
};

// Device memory that grows and whose contents are not kept; shared by what runs on one stream after another.
template <class T>
class Scratch {
 public:
  T* get(std::size_t count) {
    if (buffer_.size() < count) buffer_ = Buffer<T>(std::max(count, buffer_.size() + buffer_.size() / 4));
    return buffer_.data();
  }
  std::size_t bytes() const noexcept { return buffer_.bytes(); }
  T* data() const noexcept { return buffer_.data(); }

 private:
  Buffer<T> buffer_;
};

// What prompts need beside the heads.
struct PromptScratch {
  Scratch<float> lse;              // [tokens][query_heads]
  Scratch<std::uint32_t> chosen;   // [kv_heads][stride]
  Scratch<std::uint32_t> order;    // [kv_heads][stride]
  Scratch<float> ratings, pooled;  // [kv_heads][stride]
  Scratch<SelectHead> select;      // [kv_heads]
  Scratch<CompactHead> compact;    // [kv_heads]

  std::size_t bytes() const noexcept {
    return lse.bytes() + chosen.bytes() + order.bytes() + ratings.bytes() + pooled.bytes() + select.bytes() +
           compact.bytes();
  }
};

}  // namespace zeromerge::cuda
