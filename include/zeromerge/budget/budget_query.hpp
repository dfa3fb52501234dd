// What a budget is asked, and what it may look at.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <numeric>
#include <span>
#include <vector>

#include "zeromerge/budget/amount.hpp"

namespace zeromerge {

// The layers that share a budget, where it is asked about some of them: what the others have got already is
// not there any more.
struct BudgetProgress {
  std::vector<std::size_t> kv_heads{};  // of every layer that shares, in their order
  std::vector<std::size_t> asked{};     // places in it of the layers asked about
  std::size_t ended = 0;                // heads of layers that have ended this prompt before
  std::ptrdiff_t spent = 0;             // entries these got beside their first stage
  std::size_t known = 0;                // heads, of those ended, whose values are in `best`
  std::vector<float> best{};            // what they were rated, as far as it can matter
};

// One layer, or several at once (for a budget that needs_all_layers).
struct BudgetQuery {
  std::size_t layer = 0;   // the first
  std::size_t layers = 1;  // asked about
  // Their numbers in the model, where they do not follow each other.
  std::span<const std::size_t> numbers = {};
  std::size_t kv_heads = 1;  // of a layer
  // The same of each of them, where layers differ.
  std::span<const std::size_t> each = {};
  std::size_t tokens = 0;           // seen so far
  std::size_t least = 0;            // what a share is lifted to; a count is taken as it is
  std::size_t lowest = kUnlimited;  // where heads differ none has fewer than the smaller of this and `least`
  std::size_t needed = 0;           // no head can do with fewer
  std::size_t local = 0;            // what heads of different capacities have at least, see Areas::local
  std::size_t beside = 0;           // of the mean capacity: first, last and merged entries, and one more
  std::size_t by_bytes = 0;         // entries of a head whose bytes are the budget's, where it gives bytes
  std::size_t group = 1;            // entries that are stored together, behind `loose` that never are
  std::size_t loose = 0;
  bool precise = false;  // keys take 8 bits instead of 4, see Policy::precise_from
  std::span<const std::vector<float>> importance =
      {};  // [heads()][entries], filled if the budget needs_importance
  std::span<const std::size_t> within_error =
      {};  // [kv_heads] least capacities within the budget's target_error, where it has one
  const BudgetProgress* progress = nullptr;  // null: these are all layers

  std::size_t number(std::size_t i) const noexcept { return numbers.empty() ? layer + i : numbers[i]; }
  std::size_t heads_of(std::size_t i) const noexcept { return each.empty() ? kv_heads : each[i]; }
  std::size_t heads() const noexcept {  // of all that are asked about
    return each.empty() ? layers * kv_heads : std::accumulate(each.begin(), each.end(), std::size_t{0});
  }
};

// Entries per head: on average, and what none gets less than. `floor` is a share of the average.
struct CapacityBounds {
  static constexpr double kMostLocal = 0.6;  // of the average: the rest goes where it is needed most
  std::size_t mean;
  std::size_t lowest;
  CapacityBounds(const Amount& amount, const BudgetQuery& query, double floor) noexcept
      : mean(amount.is_bytes   ? query.by_bytes
             : amount.is_share ? std::max(amount.of(query.tokens), query.least)
                               : amount.of(query.tokens)),
        lowest(std::max(
            {std::min(mean, std::max(std::min(query.least, query.lowest), query.needed)),
             static_cast<std::size_t>(floor * static_cast<double>(mean)),
             std::min(query.local, static_cast<std::size_t>(kMostLocal * static_cast<double>(mean)))})) {}

  // What none gets less than where it holds `beside` in any case.
  std::size_t lowest_with(std::size_t beside) const noexcept {
    return std::min(mean, std::max(lowest, beside));
  }
};

// How a head is filled where a budget gives heads very different capacities. The last tokens are a share of
// `mean`, the same number for every head. In two stages: `first` entries, the first and last tokens among
// them, by the running score, the policy's share of the rest by the score of whole prompts; 0: in one.
struct Filling {
  std::size_t mean;
  std::size_t first = 0;
  std::size_t whole = 0;  // in two stages: a head of so many entries or fewer keeps them in any case
  bool in_stages() const noexcept { return first != 0; }
};

template <class B>
bool needs_all_layers(const B& budget) noexcept {
  if constexpr (requires { budget.needs_all_layers(); })
    return budget.needs_all_layers();
  else if constexpr (requires { B::needs_all_layers; })
    return B::needs_all_layers;
  else
    return false;
}

// [query.heads()]; empty: heads are filled as the policy says.
template <class B>
std::vector<Filling> fillings_of(const B& budget, const BudgetQuery& query) {
  if constexpr (requires {
                  { budget.fillings(query) } -> std::convertible_to<std::vector<Filling>>;
                })
    return budget.fillings(query);
  else
    return {};
}

// The error of the attention output that a budget allows, relative; 0: it has none in mind.
template <class B>
double target_error(const B& budget) noexcept {
  if constexpr (requires { budget.target_error(); })
    return budget.target_error();
  else
    return 0.0;
}

// Whether a budget says what it gives a head on average.
template <class B>
constexpr bool states_amount() noexcept {
  return requires(const B& b) {
    { b.amount } -> std::convertible_to<Amount>;
  }
  || requires(const B& b) {
    { b.amount() } -> std::convertible_to<Amount>;
  };
}

// What a budget gives a head on average; one that says nothing of it gives everything.
template <class B>
Amount amount_of(const B& budget) noexcept {
  if constexpr (requires {
                  { budget.amount } -> std::convertible_to<Amount>;
                })
    return budget.amount;
  else if constexpr (requires {
                       { budget.amount() } -> std::convertible_to<Amount>;
                     })
    return budget.amount();
  else
    return {};
}

// Entries of a head on average, for budgets that give heads different capacities; 0: all are alike.
template <class B>
std::size_t mean_of(const B& budget, const BudgetQuery& query) {
  if constexpr (requires { budget.mean(query); })
    return budget.mean(query);
  else
    return 0;
}

}  // namespace zeromerge
