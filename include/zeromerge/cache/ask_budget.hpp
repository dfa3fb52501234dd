// What a policy's budget is asked: its query, and how many entries a budget in bytes comes to.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <type_traits>
#include <vector>

#include "zeromerge/cache/policy.hpp"
#include "zeromerge/storage/head.hpp"

namespace zeromerge::detail {

// Whether rows are packed in groups; `precise`: not those of keys.
template <class P>
bool stores_groups(const P& policy, bool precise) noexcept {
  return (policy.key_type == StorageType::q4 && !precise) || policy.value_type == StorageType::q4;
}

// How long the rows of the heads are that share a budget: a number, or of some heads one, of others another.
// Bytes are then those of all heads if they had the same number of entries.
class HeadDims {
 public:
  struct Some {
    std::size_t head_dim;
    std::size_t heads;
  };

  HeadDims() = default;
  HeadDims(std::size_t head_dim) : some_{{head_dim, 1}} {}  // NOLINT: a number is one
  void add(std::size_t head_dim, std::size_t heads) {
    for (Some& some : some_)
      if (some.head_dim == head_dim) return void(some.heads += heads);
    some_.push_back({head_dim, heads});
  }
  std::span<const Some> all() const noexcept { return some_; }

 private:
  std::vector<Some> some_;
};

// Bytes of a head, on average, whose capacities are `entries` on average: all alike, or different ones that
// are filled in whole groups (see fill_groups). `precise`: with keys in 8 bits, see Policy::precise_from. On
// the host; a device lays entries out in its own way.
template <class P>
class HeadBytes {
 public:
  HeadBytes(const P& policy, const HeadDims& dims, bool alike, bool precise = false)
      : policy_(policy), alike_(alike), precise_(precise) {
    for (const HeadDims::Some& some : dims.all()) {
      heads_.emplace_back(some.head_dim, policy.fields(), nullptr, policy.key_type, policy.value_type);
      counts_.push_back(some.heads);
    }
  }

  double operator()(std::size_t entries) const {
    if (heads_.size() == 1) return bytes_of(heads_[0], entries);
    double sum = 0.0, heads = 0.0;
    for (std::size_t i = 0; i < heads_.size(); ++i) {
      sum += static_cast<double>(counts_[i]) * bytes_of(heads_[i], entries);
      heads += static_cast<double>(counts_[i]);
    }
    return sum / heads;
  }

  // The most entries that `bytes` hold.
  std::size_t entries_within(std::size_t bytes) const {
    std::size_t low = 0;
    std::size_t high = bytes;  // every entry takes more than one
    while (low < high) {
      const std::size_t middle = high - (high - low) / 2;
      if (fits(middle, bytes))
        low = middle;
      else
        high = middle - 1;
    }
    // Where a group fills, or last tokens are too many to be kept out of groups, a larger head takes less.
    std::size_t most = low;
    for (std::size_t entries = low + 1; entries <= low + kTeeth; ++entries)
      if (fits(entries, bytes)) most = entries;
    return most;
  }

 private:
  using HeadType = Head<typename P::Key, typename P::Value>;
  // Entries within which what a head takes has caught up with the rows that wait for their group, at most
  // three groups of them.
  static constexpr std::size_t kTeeth = 16 * kernels::kGroup;

  double bytes_of(const HeadType& head, std::size_t entries) const {
    Division d = division_of(policy_, entries);
    d.precise = precise_;
    const std::size_t loose = loose_entries(d);
    const auto sized = [&](std::size_t capacity, Block::Sizing sizing) {
      return static_cast<double>(
          head.bytes_for(capacity - std::min(capacity, d.slack), capacity + 1, loose_rows(d), sizing));
    };
    if (alike_) return sized(entries, Block::rounded);
    const auto likely = [&](std::size_t capacity) { return sized(capacity, Block::likely); };
    if (!stores_groups(policy_, precise_) || entries < loose) return likely(entries);
    const std::size_t over = (entries - loose) % kernels::kGroup;
    const double part = static_cast<double>(over) / kernels::kGroup;
    return (1.0 - part) * likely(entries - over) + part * likely(entries - over + kernels::kGroup);
  }

  bool fits(std::size_t entries, std::size_t bytes) const {
    return (*this)(entries) <= static_cast<double>(bytes);
  }

  const P& policy_;
  bool alike_;
  bool precise_;
  std::vector<HeadType> heads_;      // one of each length of rows
  std::vector<std::size_t> counts_;  // how many there are of each
};

template <class P>
std::size_t entries_within(const P& policy, const HeadDims& dims, std::size_t bytes, bool precise = false) {
  const bool alike = mean_of(policy.budget, {.by_bytes = 1}) == 0;
  return HeadBytes<P>(policy, dims, alike, precise).entries_within(bytes);
}

// Whether the budget keeps so much of these tokens that keys are stored in 8 bits instead of 4. One with an
// error in mind does not know yet; bytes in which 8 bits cannot be done with stay 4.
template <class P>
bool stores_precisely(const P& policy, const HeadDims& dims, std::size_t tokens) {
  if (!(policy.precise_from > 0.0) || policy.key_type != StorageType::q4) return false;
  if (target_error(policy.budget) > 0.0) return false;
  const Amount amount = amount_of(policy.budget);
  if (amount.is_share) return amount.value >= policy.precise_from;
  const std::size_t entries =
      amount.is_bytes ? entries_within(policy, dims, amount.of(0), true) : amount.of(0);
  return entries >= needed_capacity(policy) &&
         static_cast<double>(entries) >= policy.precise_from * static_cast<double>(tokens);
}

// Throws Error if the budget is bytes that no head can do with. `dims`: of all layers; unless these share the
// budget, each has to do with it.
template <class P>
void check_bytes(const P& policy, const HeadDims& dims) {
  const Amount amount = amount_of(policy.budget);
  if (!amount.is_bytes) return;
  if (dims.all().size() > 1 && !needs_all_layers(policy.budget)) {
    for (const HeadDims::Some& some : dims.all()) check_bytes(policy, some.head_dim);
    return;
  }
  const std::size_t entries = entries_within(policy, dims, amount.of(0));
  if (entries < needed_capacity(policy))
    fail("budget: ", amount.of(0), " bytes a head hold ", entries, " entries, this policy needs ",
         needed_capacity(policy), "; raise the budget or lower tail or sinks");
}

// About one layer.
template <class P>
BudgetQuery budget_query(const P& policy, std::size_t layer, std::size_t kv_heads, const HeadDims& dims,
                         std::size_t tokens) {
  BudgetQuery query{.layer = layer,
                    .kv_heads = kv_heads,
                    .tokens = tokens,
                    .least = least_capacity(policy),
                    .lowest = policy.areas.lowest,
                    .needed = needed_capacity(policy),
                    .local = policy.areas.local.of(tokens)};
  query.precise = stores_precisely(policy, dims, tokens);
  if (const Amount amount = amount_of(policy.budget); amount.is_bytes)
    query.by_bytes = entries_within(policy, dims, amount.of(0), query.precise);
  if (const std::size_t mean = mean_of(policy.budget, query); mean != 0) {
    const Division d = division_of(policy, mean);
    query.beside = d.sinks + d.residual + d.recent + d.slack + 1;
    query.loose = loose_entries(d);
    if (stores_groups(policy, query.precise)) query.group = kernels::kGroup;
  }
  return query;
}

// Entries of a head on average that a share gives after so many tokens; 0: capacities do not follow the
// tokens seen, since the budget states no share or the policy is the reference's.
template <class P>
std::size_t following_mean(const P& policy, std::size_t tokens) noexcept {
  const Amount amount = amount_of(policy.budget);
  if (!states_amount<std::remove_cvref_t<decltype(policy.budget)>>()) return 0;
  if (!amount.is_share || policy.areas.as_reference) return 0;
  return std::max(amount.of(tokens), least_capacity(policy));
}

// What heads of these capacities are divided into. Throws Error if one is impossible.
template <class P>
std::vector<Division> divide_all(const P& policy, const BudgetQuery& query,
                                 std::span<const std::size_t> capacities) {
  const auto fillings = fillings_of(policy.budget, query);
  std::vector<Division> all;
  for (const std::size_t capacity : capacities) {
    all.push_back(divide(policy, capacity, fillings.empty() ? nullptr : &fillings[all.size()]));
    all.back().precise = query.precise;
    all.back().mean = capacity == kUnlimited ? 0 : following_mean(policy, query.tokens);
  }
  return all;
}

}  // namespace zeromerge::detail
