// A policy: what is kept (a running score, and one of whole prompts beside it), how many entries each head
// gets (budget), what happens to the rest (merge), how entries are stored (element types of keys and values),
// and which entries are exempt (areas). Composed at compile time.
#pragma once

#include <concepts>
#include <cstddef>
#include <string>
#include <vector>

#include "zeromerge/budget/budgets.hpp"
#include "zeromerge/core/element.hpp"
#include "zeromerge/merge/merges.hpp"
#include "zeromerge/merge/refit.hpp"
#include "zeromerge/score/decayed_attention.hpp"
#include "zeromerge/score/prompt_score.hpp"

namespace zeromerge {

// What the cache asks of a score. All of it is a function of parameters; the scores themselves lie with the
// entries. One whose is_importance() (optional) returns true says that importance(x, n) is x: the search for
// the least important is then one pass.
template <class S>
concept Score = requires(const S& s, float x, std::size_t n) {
  { S::needs_probabilities } -> std::convertible_to<bool>;
  { s.decay() } -> std::convertible_to<float>;            // of every score, once per query row
  { s.tail_rows() } -> std::convertible_to<std::size_t>;  // last rows of a prompt that count; 0: all
  { s.weight(n) } -> std::convertible_to<double>;         // of a row with n rows after it
  {
    s.importance(x, n)
    } -> std::convertible_to<float>;                 // of an entry with this score that n queries could see
  { s.merged(x, x) } -> std::convertible_to<float>;  // the score of two entries folded into one
};

// What the cache asks of a budget: entries per head of one layer.
template <class B>
concept Budget = requires(const B& b, const BudgetQuery& q) {
  { B::needs_importance } -> std::convertible_to<bool>;
  { b.capacities(q) } -> std::same_as<std::vector<std::size_t>>;
};

// What the cache asks of a merge.
template <class M>
concept Merge = requires(const M& m, Head<float>& head, std::size_t n, std::span<const std::size_t> slots,
                         const NoScore& s) {
  { m.keeps_mass() } -> std::convertible_to<bool>;  // entries carry a mass and a bias
  {
    m.residuals(n)
    } -> std::convertible_to<std::size_t>;  // merged entries of a head with n entries beside the recent
  m.fold(head, n, n, n, s);                 // one leaver in decode; writes rows before what lies beside them
  m.fold_group(head, slots, head, n, s);    // many at the end of a prompt
};

// Who is exempt from competition, and the order of slots: sinks | residual | context | recent (a ring once
// the head is full).
struct Areas {
  Amount recent = share(0.4);       // the last tokens: of a head's capacity; at least 2
  std::size_t sinks = 4;            // the first tokens, never evicted, never merged
  std::size_t least = 32;           // a share budget never asks heads to do with fewer entries on average
  std::size_t lowest = kUnlimited;  // where heads differ none has fewer than the smaller of this and `least`
  Amount local = count(0);  // what every head of an unequal budget has at least, up to 60 % of the mean:
                            // of the tokens seen, for the longer a prompt, the more lies near that matters
  std::size_t block = 1;    // decoded tokens after which as many leave at once
  std::size_t hold = 0;     // decoded tokens after which half of what a lasting score of whole prompts chose
                            // competes again; 0: it stays for good
  std::size_t rollback = 64;  // newest tokens that can be taken back, see LayerCache::truncate; 0: none
  bool as_reference = false;  // the reference code to the letter, see cache/evict.hpp

  static constexpr std::size_t kMostRollback = 1024;

  // Entries times tokens for which one of them begins to compete.
  std::size_t hold_sum() const noexcept {
    return static_cast<std::size_t>(static_cast<double>(hold) * 1.4426950408889634 + 0.5);  // hold / ln 2
  }
  std::size_t recent_of(std::size_t capacity) const noexcept {
    return std::max<std::size_t>(2, recent.of(capacity));
  }
};

// Whether a score says who is worth more: by the probabilities it sees, or (ranks) by other means.
template <class S>
constexpr bool ranks() noexcept {
  if constexpr (requires { S::ranks; })
    return S::ranks;
  else
    return S::needs_probabilities;
}

// Entries that cannot be ranked can only all be kept.
template <class S, class B>
concept Ranked = ranks<S>() || std::same_as<B, Unlimited>;

template <Score S, Budget B, Merge M, class K = f16, class V = K, PromptScore R = NoPromptScore>
requires Ranked<S, B>
struct Policy {
  using ScoreType = S;
  using Key = K;
  using Value = V;
  S score{};
  B budget{};
  M merge{};
  Areas areas{};
  bool bounded = false;  // compress after every chunk of a prompt: the peak is the budget plus one chunk
  StorageType key_type = storage_of<K>;  // with any_storage: what to store; else a fact
  StorageType value_type = storage_of<V>;
  R prompt_score{};
  double prompt_share = 1.0;  // of what a head keeps beside its first and last tokens, chosen by prompt_score
                              // after the rest has been chosen by the running score
  double precise_from = 0.0;  // with keys in 4 bits: a budget that keeps at least this share of the tokens
                              // with keys in 8 bits stores them so, for there their rounding costs most; 0:
                              // never. A budget without an amount counts as everything.
  bool gated = false;         // merge at the end of a prompt only in heads where that is measured to help
  RefitParams refit{};

  // Whether the end of a prompt asks reference queries.
  bool asks_references() const noexcept {
    return refit.references != 0 || gated || target_error(budget) > 0.0;
  }
  bool rates_prompts() const noexcept { return !std::same_as<R, NoPromptScore> && prompt_share > 0.0; }
  // A prompt's queries are kept until it ends for what looks at them again; turning them to other positions
  // needs the model's RoPE (CacheOptions::rope).
  bool keeps_queries() const noexcept {
    return (rates_prompts() && prompt_score.needs_queries()) || asks_references();
  }
  bool needs_rope() const noexcept {
    return (rates_prompts() && prompt_score.needs_rope()) || asks_references();
  }
  EntryFields fields() const noexcept { return {S::needs_probabilities, merge.keeps_mass()}; }
};

// ZeroMerge with a uniform budget, and the full cache.
template <class K = f16, class V = K>
using ZeroMerge = Policy<DecayedAttention, UniformBudget, ResidualMerge, K, V>;
template <class K = f16, class V = K>
using Full = Policy<NoScore, Unlimited, DropMerge, K, V>;

// What a head of this capacity is divided into.
struct Division {
  std::size_t capacity = kUnlimited;
  std::size_t sinks = 0;
  std::size_t residual = 0;  // reserved for merged entries
  std::size_t recent = 0;
  std::size_t slack = 0;      // free at the end of a prompt, for a block of decoded tokens
  std::size_t by_prompt = 0;  // of the context at the end of a prompt: by the score of whole prompts
  bool precise = false;       // keys that could be packed in 4 bits stay in 8, see Policy::precise_from
  std::size_t mean = 0;       // of all heads' capacities where they follow the tokens seen; 0: they stay
  bool by_mean = false;       // the last tokens are a share of `mean`, the same number for every head

  // It holds every area and one candidate.
  bool possible() const noexcept { return capacity > sinks + recent + residual + slack; }
  // Entries that have been competed for.
  std::size_t context() const noexcept { return capacity - sinks - recent - residual - slack; }
};

// Last entries of a head that are kept out of groups where others are quantised together: the ring of last
// tokens, which every decoded token writes to, and would round what lies beside it in a group again each
// time. A ring of more than two groups is not worth its bytes.
inline std::size_t loose_entries(const Division& d) noexcept {
  const std::size_t moving = d.recent + d.slack;
  return d.capacity == kUnlimited || moving > 2 * kernels::kGroup ? 0 : moving;
}
// The same for keys and values: in 8 bits all keys stay out of groups.
inline LooseRows loose_rows(const Division& d) noexcept {
  const std::size_t loose = loose_entries(d);
  return {d.precise ? LooseRows::kAll : loose, loose};
}

// `filling`: what a budget says about it; null: by the policy's shares.
template <class P>
Division division_of(const P& policy, std::size_t capacity, const Filling* filling = nullptr) noexcept {
  if (capacity == kUnlimited) return {};
  Division d{.capacity = capacity, .sinks = policy.areas.sinks};
  d.by_mean = filling != nullptr;
  d.recent = policy.areas.recent_of(filling != nullptr ? filling->mean : capacity);
  d.slack = policy.areas.block - 1;
  if (d.recent < capacity) d.residual = policy.merge.residuals(capacity - d.recent);
  if (!d.possible() || !policy.rates_prompts()) return d;
  const std::size_t ranked = filling != nullptr && filling->in_stages()
                                 ? std::min(d.context(), capacity - std::min(capacity, filling->first))
                                 : d.context();
  d.by_prompt = static_cast<std::size_t>(policy.prompt_share * static_cast<double>(ranked) + 0.5);
  return d;
}

// Throws Error if the division is impossible.
template <class P>
Division divide(const P& policy, std::size_t capacity, const Filling* filling = nullptr) {
  const Division d = division_of(policy, capacity, filling);
  if (!d.possible())
    fail("budget: ", capacity, " entries per head are too few for ", d.sinks, " sinks, ", d.recent,
         " recent and ", d.residual, " residual entries",
         d.slack != 0 ? ", a block of " + std::to_string(d.slack + 1) : std::string(),
         " and at least one more; raise the budget or lower these");
  return d;
}

// The least possible capacity, by bisection: what is left for candidates never falls as the capacity rises.
template <class P>
std::size_t needed_capacity(const P& policy) noexcept {
  std::size_t low = 0;
  std::size_t high = std::size_t{1} << 31;  // more than any head holds: then none is possible
  while (low < high) {
    const std::size_t middle = (low + high) / 2;
    if (division_of(policy, middle).possible()) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return high;
}

// The least capacity that a share budget is rounded up to.
template <class P>
std::size_t least_capacity(const P& policy) {
  return policy.areas.as_reference ? 0 : policy.areas.least;
}

}  // namespace zeromerge
