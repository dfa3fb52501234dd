// What a policy of the host means on a device, or why it cannot run there.
#pragma once

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <variant>

#include "zeromerge/cache/policy.hpp"
#include "zeromerge/kernels/cuda/layout.hpp"
#include "zeromerge/score/any_prompt_score.hpp"
#include "zeromerge/score/recency.hpp"

namespace zeromerge::cuda {

// Scores that a step on the device can update by itself.
template <class S>
concept DeviceScore =
    std::same_as<S, DecayedAttention> || std::same_as<S, Recency> || std::same_as<S, NoScore>;

// What a cache asks of its policy, once.
struct DevicePolicy {
  StepRule rule{};
  EntryFields fields{};
  StorageType key_type{};
  StorageType value_type{};
  std::size_t tail_rows = 0;  // of a prompt's call that count for the score; 0: all
  std::size_t window = 0;     // last queries of a prompt that rate it; 0: none do (but see rule.rates_keys)
  std::size_t pooled = 1;     // entries that a rating is pooled over,
  bool pooled_by_maximum = false;  // by their maximum, not their average
};

namespace detail {

inline constexpr const char* kHostPrompts =
    "compress prompts on the host (CacheOptions::host_prompts, upload())";

// The alternative of a composition that may be chosen at run time; f(choice).
template <class T, class F>
void with_choice(const T& part, const F& f) {
  if constexpr (requires { part.choice; })
    std::visit(f, part.choice);
  else
    f(part);
}

inline void read_score(const DecayedAttention& score, DevicePolicy& to) {
  to.rule.importance = score.is_importance() ? Importance::score : Importance::mean_score;
  to.rule.decay = score.decay();
  to.rule.log2_decay = score.decay() == 1.0f ? 0.0f : std::log2(score.decay());
  to.rule.sum_on_merge = score.merged(1.0f, 1.0f) == 2.0f ? 1 : 0;
  to.tail_rows = score.tail_rows();
}
inline void read_score(const Recency&, DevicePolicy& to) { to.rule.importance = Importance::recency; }
inline void read_score(const NoScore&, DevicePolicy&) {}

inline void read_merge(const DropMerge&, DevicePolicy& to) { to.rule.fold = Fold::drop; }
inline void read_merge(const ResidualMerge& merge, DevicePolicy& to) {
  const ResidualMerge::Params& p = merge.params();
  to.rule.fold = Fold::residual;
  to.rule.alpha = p.alpha;
  to.rule.match = p.metric == ResidualMerge::Metric::dot ? Match::dot : Match::l2;
}
inline void read_merge(const NearestValueMerge&, DevicePolicy& to) { to.rule.fold = Fold::drop; }
template <class M>
void read_merge(const M&, DevicePolicy&) {
  fail(
      "cuda: a device folds leavers into merged entries or drops them; use merge=residual, drop or "
      "nearest, or the host's cache");
}

// What becomes of the leavers of a whole prompt.
template <class M>
void check_groups(const M&) {}
inline void check_groups(const NearestValueMerge&) {
  fail("cuda: at the end of a prompt values go to near keys on the host only; use merge=drop, or ",
       kHostPrompts);
}
inline void check_groups(const ResidualMerge& merge) {
  if (merge.params().clusters)
    fail("cuda: groups of near keys are made on the host only; use groups=arrival, or ", kHostPrompts);
}

inline void read_prompt_score(const NoPromptScore&, DevicePolicy&) {}
inline void read_prompt_score(const KeyDiff&, DevicePolicy&) {}  // see read_again
inline void read_prompt_score(const WindowAttention& score, DevicePolicy& to) {
  to.window = score.window;
  to.pooled = score.kernel;
  to.pooled_by_maximum = score.maximum;
}
template <class R>
void read_prompt_score(const R&, DevicePolicy&) {
  fail(
      "cuda: of the scores of whole prompts a device has the window (snapkv) and keydiff; use window= or "
      "keydiff=, leave the score out, or ",
      kHostPrompts);
}

inline void check_stored(const char* what, StorageType type) {
  if (type != StorageType::f16 && type != StorageType::bf16 && type != StorageType::q8)
    fail("cuda: ", what, " are stored as f16, bf16 or q8 on a device, asked for ", storage_name(type),
         "; choose one of them");
}

}  // namespace detail

// Whether the budget compares what entries are worth.
template <class B>
bool compares_entries(const B& budget) {
  bool compares = false;
  detail::with_choice(budget,
                      [&](const auto& b) { compares = std::remove_cvref_t<decltype(b)>::needs_importance; });
  return compares;
}

// Whether its score of whole prompts decides in decode too.
template <class P>
bool asks_again(const P& policy) {
  if constexpr (requires { policy.prompt_score.rates_in_decode(); })
    return policy.rates_prompts() && policy.prompt_score.rates_in_decode();
  else
    return false;
}

// What decides in decode beside the running score. Throws Error.
template <class P>
void read_again(const P& policy, DevicePolicy& to) {
  if (!asks_again(policy)) return;
  bool keys = false;
  detail::with_choice(policy.prompt_score, [&](const auto& score) {
    keys = std::same_as<std::remove_cvref_t<decltype(score)>, KeyDiff>;
  });
  if (!keys)
    fail(
        "cuda: of the scores of whole prompts that are asked again in decode a device has keydiff; "
        "others need the host's cache");
  if (!to.fields.score || to.rule.fold != Fold::drop)
    fail(
        "cuda: on a device keydiff decides who is dropped in decode: use merge=drop and a policy that keeps "
        "scores, or the host's cache");
  to.rule.rates_keys = 1;
}

// What a policy asks of a prompt's end, where the device does that too. Throws Error.
template <class P>
void read_prompt_end(const P& policy, DevicePolicy& to) {
  if (policy.rates_prompts())
    detail::with_choice(policy.prompt_score,
                        [&](const auto& score) { detail::read_prompt_score(score, to); });
  if constexpr (requires { policy.prompt_score.by_value_norm; })
    if (policy.rates_prompts() && policy.prompt_score.by_value_norm)
      fail("cuda: a device's ratings leave the length of values aside; leave norm= out, or ",
           detail::kHostPrompts);
  detail::with_choice(policy.merge, [&](const auto& merge) { detail::check_groups(merge); });
  if (policy.bounded && policy.rates_prompts())
    fail("cuda: in bounded mode nothing rates a whole prompt; use window= or bounded=1, not both");
  if (policy.refit.references != 0 || policy.gated)
    fail("cuda: values are not refitted nor merges measured on a device; leave refit= and gate= out, or ",
         detail::kHostPrompts);
  if (target_error(policy.budget) > 0.0 ||
      (needs_all_layers(policy.budget) && compares_entries(policy.budget)))
    fail(
        "cuda: a device's budget compares the entries of one layer at most: use heads=uniform, adaptive, "
        "profile or pyramid, or ",
        detail::kHostPrompts);
}

// host_prompts: prompts are compressed on the host, so only what a step does counts. Throws Error, which
// names a remedy, where a device cannot do what the policy asks.
template <class P>
DevicePolicy device_policy(const P& policy, bool host_prompts = false) {
  static_assert(
      DeviceScore<typename P::ScoreType>,
      "a device updates DecayedAttention, Recency or NoScore by itself; other scores need the host's cache");
  DevicePolicy d;
  d.rule.decay = 1.0f;
  d.fields = policy.fields();
  d.key_type = policy.key_type;
  d.value_type = policy.value_type;
  d.rule.block = static_cast<std::uint32_t>(policy.areas.block);
  d.rule.hold = static_cast<std::uint32_t>(std::min<std::size_t>(policy.areas.hold_sum(), 0x7fffffff));
  detail::read_score(policy.score, d);
  detail::with_choice(policy.merge, [&](const auto& merge) { detail::read_merge(merge, d); });
  read_again(policy, d);
  if (!host_prompts) read_prompt_end(policy, d);
  if (d.fields.mass && !d.fields.score)
    fail(
        "cuda: merged entries need a score by which they compete; use DecayedAttention, or drop what leaves");
  if (policy.areas.as_reference)
    fail("cuda: the reference code to the letter runs on the host only; leave reference=1 out");
  detail::check_stored("keys", d.key_type);
  detail::check_stored("values", d.value_type);
  return d;
}

}  // namespace zeromerge::cuda
