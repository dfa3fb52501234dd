// What a layer held at one moment, copied: its entries as they are stored, what the policy keeps beside them,
// the queries of a prompt that had not ended and what a second reading of it has found, and what taking
// tokens back needs. A copy and no record of changes, so entries that leave later come back.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "zeromerge/cache/budget_share.hpp"
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

template <class P>
class LayerCache;

// H: the head's type. Its bytes count in the ledger of the cache that it is from, which it keeps, so that it
// may outlive the cache; no other cache takes it.
template <class H>
class Checkpoint {
 public:
  Checkpoint(std::shared_ptr<ByteLedger> ledger, std::size_t layer, std::span<const H> heads,
             const std::vector<HeadState>& states, const QueryRows& queries, const SecondReading& second,
             const BudgetShare& budget_share, const LayerProgress& progress)
      : ledger_(std::move(ledger)),
        layer_(layer),
        heads_(heads.begin(), heads.end()),
        states_(states),
        queries_(queries),
        second_(second),
        budget_share_(budget_share),
        progress_(progress) {}

  // Explicit, for it is never wanted by the way.
  explicit Checkpoint(const Checkpoint&) = default;
  Checkpoint(Checkpoint&&) noexcept = default;
  Checkpoint& operator=(Checkpoint&&) noexcept = default;

  // Whether it is of this layer of the cache that counts in `ledger`; the sequence may be another.
  bool is_of(const std::shared_ptr<ByteLedger>& ledger, std::size_t layer) const noexcept {
    return ledger == ledger_ && layer == layer_;
  }
  std::size_t layer() const noexcept { return layer_; }
  std::size_t tokens() const noexcept { return progress_.tokens; }  // that the layer had seen
  std::span<const H> heads() const noexcept { return heads_; }
  const std::vector<HeadState>& states() const noexcept { return states_; }
  const QueryRows& queries() const noexcept { return queries_; }
  const SecondReading& second() const noexcept { return second_; }
  const BudgetShare& budget_share() const noexcept { return budget_share_; }
  // From now on it counts in another cache's ledger, and is of that cache.
  void count_in(std::shared_ptr<ByteLedger> ledger) noexcept {
    for (H& head : heads_) head.count_in(ledger.get());
    queries_.count_in(ledger.get());
    second_.count_in(ledger.get());
    ledger_ = std::move(ledger);
  }
  std::size_t bytes() const noexcept {
    std::size_t sum = queries_.bytes() + second_.bytes();
    for (const H& head : heads_) sum += head.bytes();
    return sum;
  }

 private:
  template <class P>
  friend class LayerCache;
  std::shared_ptr<ByteLedger> ledger_;  // the identity of its cache; outlives what counts in it
  std::size_t layer_;
  std::vector<H> heads_;           // [kv_heads]
  std::vector<HeadState> states_;  // [kv_heads]
  QueryRows queries_;
  SecondReading second_;
  BudgetShare budget_share_;
  LayerProgress progress_;
};

}  // namespace zeromerge
