// What a layer held at one moment, copied: its entries as they are stored, what the policy keeps beside them,
// the queries of a prompt that had not ended and what a second reading of it has found. A copy and no record
// of changes, so entries that leave later come back.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "zeromerge/cache/evict.hpp"
#include "zeromerge/cache/second_reading.hpp"
#include "zeromerge/core/ledger.hpp"
#include "zeromerge/storage/query_rows.hpp"

namespace zeromerge {

// H: the head's type. Its bytes count in the ledger of the cache that it is from, which it must not outlive.
template <class H>
class Checkpoint {
 public:
  Checkpoint(const ByteLedger* ledger, std::size_t layer, std::span<const H> heads,
             const std::vector<HeadState>& states, const QueryRows& queries, const SecondReading& second,
             std::size_t tokens, std::size_t unscored, bool in_prompt)
      : ledger_(ledger),
        layer_(layer),
        heads_(heads.begin(), heads.end()),
        states_(states),
        queries_(queries),
        second_(second),
        tokens_(tokens),
        unscored_(unscored),
        in_prompt_(in_prompt) {}

  // Whether it is of this layer of the cache that counts in `ledger`; the sequence may be another.
  bool is_of(const ByteLedger* ledger, std::size_t layer) const noexcept {
    return ledger == ledger_ && layer == layer_;
  }
  std::size_t layer() const noexcept { return layer_; }
  std::size_t tokens() const noexcept { return tokens_; }      // that the layer had seen
  std::size_t unscored() const noexcept { return unscored_; }  // of them the scores still lack
  bool in_prompt() const noexcept { return in_prompt_; }
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
  std::size_t tokens_;
  std::size_t unscored_;
  bool in_prompt_;
};

}  // namespace zeromerge
