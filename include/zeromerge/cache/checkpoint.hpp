// What a layer held at one moment, copied: its entries as they are stored, what the policy keeps beside them,
// the queries of a prompt that had not ended and what a second reading of it has found, and what taking
// tokens back needs. A copy and no record of changes, so entries that leave later come back.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "zeromerge/cache/evict.hpp"
#include "zeromerge/cache/second_reading.hpp"
#include "zeromerge/core/ledger.hpp"
#include "zeromerge/storage/query_rows.hpp"

namespace zeromerge {

// How far a layer has come.
struct LayerProgress {
  std::size_t tokens;    // that it has seen
  std::size_t opened;    // of them before the newest prompt
  std::size_t unscored;  // the newest that the scores still lack
  bool in_prompt;
};

// H: the head's type. Its bytes count in the ledger of the cache that it is from, which it must not outlive.
template <class H>
class Checkpoint {
 public:
  Checkpoint(const ByteLedger* ledger, std::size_t layer, std::span<const H> heads,
             const std::vector<HeadState>& states, const QueryRows& queries, const SecondReading& second,
             const LayerProgress& progress)
      : ledger_(ledger),
        layer_(layer),
        heads_(heads.begin(), heads.end()),
        states_(states),
        queries_(queries),
        second_(second),
        progress_(progress) {}

  // Whether it is of this layer of the cache that counts in `ledger`; the sequence may be another.
  bool is_of(const ByteLedger* ledger, std::size_t layer) const noexcept {
    return ledger == ledger_ && layer == layer_;
  }
  std::size_t layer() const noexcept { return layer_; }
  std::size_t tokens() const noexcept { return progress_.tokens; }  // that the layer had seen
  const LayerProgress& progress() const noexcept { return progress_; }
  std::span<const H> heads() const noexcept { return heads_; }
  const std::vector<HeadState>& states() const noexcept { return states_; }
  const QueryRows& queries() const noexcept { return queries_; }
  const SecondReading& second() const noexcept { return second_; }
  std::size_t bytes() const noexcept {
    std::size_t sum = queries_.bytes() + second_.bytes();
    for (const H& head : heads_) sum += head.bytes();
    return sum;
  }

 private:
  const ByteLedger* ledger_;
  std::size_t layer_;
  std::vector<H> heads_;           // [kv_heads]
  std::vector<HeadState> states_;  // [kv_heads]
  QueryRows queries_;
  SecondReading second_;
  LayerProgress progress_;
};

}  // namespace zeromerge
