// The composition that a spec asks for, every key read strictly; see presets.hpp for what they mean.
#pragma once

#include <memory>
#include <tuple>
#include <utility>

#include "zeromerge/cache/policy.hpp"
#include "zeromerge/cache/spec.hpp"
#include "zeromerge/score/any_prompt_score.hpp"
#include "zeromerge/score/recency.hpp"

namespace zeromerge {

// ZeroMerge with everything that a spec can choose, chosen; and the last tokens alone.
using AnyZeroMerge = Policy<DecayedAttention, AnyBudget, AnyMerge, any_storage, any_storage, AnyPromptScore>;

using AnyStreaming = Policy<Recency, AnyBudget, DropMerge, any_storage>;

namespace detail {

inline AnyBudget read_budget(const Spec& spec) {
  const Amount amount = spec.budget(share(0.05));
  if (amount.value == 0.0)
    fail("policy '", spec.text(), "': a budget of 0 keeps nothing; use 5%, a count or bytes");
  enum Kind { uniform, adaptive, profile, two_stage, global, pyramid, error };
  const std::size_t kind =
      spec.choice("heads", {"uniform", "adaptive", "profile", "two-stage", "global", "pyramid", "error"},
                  spec.has("profile") ? profile : uniform);
  const auto least_share = [&](const char* key, double otherwise) {
    const Amount least = spec.amount(key, share(otherwise));
    if (!least.is_share)
      fail("policy '", spec.text(), "': ", key, " must be a share of the uniform capacity, as in 20%");
    return least.value;
  };
  const double floor = least_share("floor", kind == adaptive    ? 0.2
                                            : kind == profile   ? 0.25
                                            : kind == two_stage ? 0.45
                                                                : 0.0);
  const double first = least_share("first", spec.has("profile") ? 0.85 : 0.3);
  const double error_bound = spec.number("error", 1e-6, 1e6, 0.1);
  if (kind != profile && kind != two_stage && spec.has("profile"))
    fail("policy '", spec.text(), "': profile= needs heads=profile or heads=two-stage");
  std::shared_ptr<const HeadProfile> table;
  if (spec.has("profile")) table = std::make_shared<HeadProfile>(HeadProfile::load(spec.word("profile", "")));
  switch (kind) {
    case adaptive:
      return {AdaptiveBudget{amount, floor}};
    case two_stage:
      if (table && floor >= first)
        fail("policy '", spec.text(), "': floor=", 100.0 * floor,
             "% leaves the profile nothing of first=", 100.0 * first,
             "% to share out; lower floor or raise first");
      return {TwoStageBudget{amount, first, table, floor}};
    case global:
      return {TwoStageBudget{amount, floor}};
    case error:
      return {ErrorBudget{amount, error_bound}};
    case pyramid:
      return {PyramidBudget{amount}};
    case profile:
      if (!table) fail("policy '", spec.text(), "': heads=profile needs profile=FILE");
      return {ProfileBudget{amount, table, floor}};
    default:
      return {UniformBudget{amount}};
  }
}

// At most one key names a score of whole prompts and gives its share.
inline void read_prompt_score(const Spec& spec, AnyZeroMerge& policy) {
  const auto read = [&](const char* key, auto score) {
    if (!spec.has(key)) return;
    const Amount amount = spec.amount(key, share(0.0));
    if (!amount.is_share)
      fail("policy '", spec.text(), "': ", key, " must be a share of what is kept, as in 50%");
    if (amount.value == 0.0) return;
    if (!std::holds_alternative<NoPromptScore>(policy.prompt_score.choice))
      fail("policy '", spec.text(), "': ", key, " is the second score of whole prompts; use one of them");
    policy.prompt_score.choice = score;
    policy.prompt_share = amount.value;
  };
  read("replay", Replay{});
  read("second", SecondReadingScore{});
  read("window", WindowAttention{});
  read("far", FarMaximum{});
  read("defensive", Defensive{});
  read("expected", ExpectedAttention{});
  read("keydiff", KeyDiff{});
  policy.prompt_score.by_value_norm = spec.choice("norm", {"0", "1"}, 0) == 1;
  if (policy.prompt_score.by_value_norm && std::holds_alternative<NoPromptScore>(policy.prompt_score.choice))
    fail("policy '", spec.text(),
         "': norm=1 multiplies a score of whole prompts and none is chosen; add one, as in window=50%");
  if (policy.prompt_score.by_value_norm && policy.prompt_score.rates_in_decode())
    fail("policy '", spec.text(),
         "': norm= is for shares of attention, keydiff's cosines may be negative; leave it out");
}

inline DecayedAttention read_score(const Spec& spec, bool reference) {
  DecayedAttention::Params p;
  p.age_normalised = spec.choice("importance", {"decayed", "mean"}, 0) == 1;
  p.decay = static_cast<float>(spec.number("decay", 1e-6, 1.0, p.age_normalised ? 1.0 : 0.98));
  if (spec.choice("score", {"tail", "exact"}, reference ? 1 : 0) == 1) p.tail_bound = 0.0f;
  p.sum_on_merge = spec.choice("update", {"max", "sum"}, 0) == 1;
  return DecayedAttention(p);
}

inline AnyMerge read_merge(const Spec& spec, bool reference) {
  const std::size_t kind = spec.choice("merge", {"residual", "drop", "nearest"}, 0);
  ResidualMerge::Params p;  // read in any case: a wrong value is refused wherever it stands
  p.clusters = spec.choice("groups", {"arrival", "clusters"}, 0) == 1;
  p.residual = spec.amount("residual", count(1));
  p.alpha = static_cast<float>(spec.number("alpha", 0.0, 100.0, reference ? 1.0 : 0.6));
  p.metric =
      spec.choice("metric", {"dot", "l2"}, 0) == 0 ? ResidualMerge::Metric::dot : ResidualMerge::Metric::l2;
  if (kind == 1) return {DropMerge{}};
  if (kind == 2) return {NearestValueMerge{}};
  return {ResidualMerge(p)};
}

inline std::size_t read_rollback(const Spec& spec) {
  const std::size_t tokens = spec.whole("rollback", 0, Areas{}.rollback);
  if (tokens > Areas::kMostRollback)
    fail("policy '", spec.text(), "': rollback=", tokens, " exceeds ", Areas::kMostRollback,
         " tokens; what is taken back further is read again");
  return tokens;
}

// Throws Error if the budget is a count with which no head can do.
template <class P>
void check_count(const P& policy) {
  const Amount amount = policy.budget.amount();
  if (!amount.is_share && !amount.is_bytes) (void)divide(policy, amount.of(0));
}

inline AnyZeroMerge read_zeromerge(const Spec& spec) {
  const bool reference = spec.choice("reference", {"0", "1"}, 0) == 1;
  AnyZeroMerge policy{read_score(spec, reference), read_budget(spec), read_merge(spec, reference)};
  policy.areas.recent = spec.amount("tail", share(reference ? 0.1 : 0.4));
  policy.areas.sinks = spec.whole("sinks", 0, reference ? 0 : 4);
  policy.areas.least = spec.whole("least", 0, 32);
  if (spec.has("lowest")) policy.areas.lowest = spec.whole("lowest", 0, 0);
  policy.areas.local = spec.amount("local", count(0));
  policy.areas.as_reference = reference;
  policy.bounded = spec.choice("bounded", {"0", "1"}, 0) == 1;
  policy.areas.block = spec.whole("evict", 1, 1);
  policy.areas.hold = spec.whole("hold", 0, 0);
  policy.areas.rollback = read_rollback(spec);
  policy.prompt_share = 0.0;
  read_prompt_score(spec, policy);
  policy.refit.references = spec.whole("refit", 0, 0);
  policy.refit.round_keys = spec.choice("rounding", {"nearest", "queries"}, 0) == 1;
  const Amount precise = spec.amount("precise", share(0.0));
  if (!precise.is_share) fail("policy '", spec.text(), "': precise must be a share of the tokens, as in 30%");
  policy.precise_from = precise.value;
  policy.gated = spec.choice("gate", {"0", "1"}, 0) == 1;
  policy.refit.ridge = static_cast<float>(spec.number("ridge", 1e-6, 1e6, 0.1));
  if (reference && (policy.rates_prompts() || policy.refit.references != 0 || policy.areas.block != 1))
    fail("policy '", spec.text(),
         "': the reference knows no score of whole prompts, no refit and no blocks; leave them out with "
         "reference=1");
  if (reference && policy.areas.sinks != 0)
    fail("policy '", spec.text(), "': the reference has no sinks; leave sinks out with reference=1");
  check_count(policy);
  return policy;
}

// StreamingLLM: the first tokens and the newest.
inline AnyStreaming read_streaming(const Spec& spec) {
  spec.allow_only({"budget", "sinks", "least", "rollback", "storage", "keys", "values"});
  AnyStreaming policy{{}, read_budget(spec), {}};
  policy.areas.recent = count(2);
  policy.areas.sinks = spec.whole("sinks", 0, 4);
  policy.areas.least = spec.whole("least", 0, 32);
  policy.areas.rollback = read_rollback(spec);
  check_count(policy);
  return policy;
}

// Throws Error if the spec has another key than these.
inline void allow_policy_keys(const Spec& spec) {
  spec.allow_only({"budget",     "tail",     "sinks",     "residual", "alpha",    "decay",  "score",
                   "importance", "heads",    "profile",   "floor",    "merge",    "update", "metric",
                   "least",      "bounded",  "reference", "storage",  "keys",     "values", "replay",
                   "refit",      "ridge",    "second",    "first",    "evict",    "window", "far",
                   "defensive",  "expected", "keydiff",   "norm",     "error",    "gate",   "groups",
                   "rounding",   "hold",     "local",     "precise",  "rollback", "lowest"});
}

template <class P>
P stored_as(P policy, const Spec& spec, StorageType otherwise) {
  std::tie(policy.key_type, policy.value_type) = spec.stored(otherwise);
  return policy;
}

}  // namespace detail
}  // namespace zeromerge
