// Scratch memory of attention calls, shared by all layers and sequences of a cache (or by several caches):
// one call at a time. It only grows, until release_prompt().
#pragma once

#include <algorithm>
#include <cstddef>
#include <thread>

#include "zeromerge/memory/block.hpp"

namespace zeromerge {

class Workspace {
 public:
  Workspace() = default;
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  std::size_t bytes() const noexcept { return ledger_.held(); }
  std::size_t bytes_peak() const noexcept { return ledger_.peak(); }

  // An uninitialised array of `n` floats; each name is one array, valid until it is asked for again.
  enum Name { queries, lanes, columns, logits, partial_out, partial_sum, kNames };
  float* floats(Name name, std::size_t n) {
    Block& block = blocks_[name];
    if (block.bytes() < n * sizeof(float)) {
      const std::size_t grown = block.bytes() + block.bytes() / 4;
      block.resize(std::max(grown, n * sizeof(float)));
    }
    return reinterpret_cast<float*>(block.data());
  }

  // Frees what only prompts need.
  void release_prompt() noexcept {
    for (const Name name : {queries, lanes, columns}) blocks_[name].resize(0);
  }

  // Frees everything; the next call takes what it needs.
  void release() noexcept {
    for (Block& block : blocks_) block.resize(0);
  }

  // Work items are taken by this many lanes at most, each with its own scratch.
  static std::size_t lane_count() noexcept {
    static const std::size_t count = std::clamp<std::size_t>(std::thread::hardware_concurrency(), 1, 64);
    return count;
  }

 private:
  ByteLedger ledger_;
  Block blocks_[kNames] = {Block(&ledger_), Block(&ledger_), Block(&ledger_),
                           Block(&ledger_), Block(&ledger_), Block(&ledger_)};
};

}  // namespace zeromerge
