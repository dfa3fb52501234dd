// Named policies and the text that chooses one:
//
// clang-format off
//   full                     everything is kept
//     storage=f32|f16|bf16|q8|q4       or keys= and values= apart                     f16
//   zeromerge                ZeroMerge (arXiv 2503.10714) with residual entries of its own and sinks that stay
//     budget=5% | 410                  entries per head: a share of the tokens seen   5%
//                                      or a count
//     tail=40% | 160                   the last tokens, always kept: of the budget    40%
//     sinks=4                          the first tokens, always kept                  4
//     residual=1 | 10%                 merged entries per head, a count or a share    1
//     alpha=0.6                        a merged entry's logit gets alpha * ln(mass)   0.6
//     decay=0.98                       of a score per query                           0.98 (importance=mean: 1)
//     score=tail|exact                 prompt rows that count: all but 1e-4 of the    tail
//                                      sum, or all
//     importance=decayed|mean          the decayed sum, or per query that could see   decayed
//                                      the entry
//     heads=uniform|adaptive|profile   who gets how many (profile= names the file)    uniform
//     floor=20%                        what every head gets at least, of the uniform  20% adaptive,
//                                      capacity                                       25% profile
//     merge=residual|drop              what happens to the rest                       residual
//     update=max|sum                   the score of a merged entry                    max
//     metric=dot|l2                    which residual entry takes a leaver            dot
//     least=32                         a share budget never asks a head to do with    32
//                                      fewer
//     bounded=0|1                      compress after every chunk of a prompt         0
//     replay=0%                        of what is kept beside the first and last      0%
//                                      tokens, chosen by replay; needs the model's
//                                      RoPE, as does refit
//     refit=0 | 256                    values fitted after the prompt to so many      0
//                                      tokens' queries
//     ridge=0.1                        how strongly they stay where they are          0.1
//     reference=0|1                    the reference code to the letter; its own defaults: tail=10%, alpha=1,
//                                      no sinks, exact scores, f32
//     storage= keys= values=           as for full                                    f16
//   h2o                      H2O (arXiv 2306.14048): attention added up over all queries, half of the budget for
//                            the last tokens, the rest dropped. zeromerge with decay=1, score=exact, tail=50%,
//                            sinks=0, merge=drop unless told otherwise
// clang-format on
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "zeromerge/cache/any_cache.hpp"
#include "zeromerge/cache/preset_table.hpp"
#include "zeromerge/cache/read_policy.hpp"

namespace zeromerge {

// Throws Error unless the text names a policy with valid keys and values; reads a profile's file.
// A template so that the many compositions are compiled only where this is called.
template <class Cache = AnyCache>
std::unique_ptr<Cache> make_cache(const std::string& text, const Geometry& geometry,
                                  CacheOptions options = {}) {
  Spec spec(text);
  const auto make = [&](auto policy) -> std::unique_ptr<Cache> {
    using P = decltype(policy);
    return std::make_unique<detail::CacheAdapter<P>>(text, geometry, std::move(policy), std::move(options));
  };
  if (spec.name() == "full") {
    spec.allow_only({"storage", "keys", "values"});
    return make(detail::stored_as(Full<any_storage>{}, spec, StorageType::f16));
  }
  if (spec.name() == "streaming")
    return make(detail::stored_as(detail::read_streaming(spec), spec, StorageType::f16));
  if (detail::assume_preset(spec)) {
    detail::allow_policy_keys(spec);
    const bool reference = spec.choice("reference", {"0", "1"}, 0) == 1;
    return make(detail::stored_as(detail::read_zeromerge(spec), spec,
                                  reference ? StorageType::f32 : StorageType::f16));
  }
  fail("policy '", text, "': unknown name '", spec.name(), "'; there are full, streaming, ",
       detail::preset_names());
}

#if defined(ZEROMERGE_COMPILED)
extern template std::unique_ptr<AnyCache> make_cache<AnyCache>(const std::string&, const Geometry&,
                                                               CacheOptions);
#endif

}  // namespace zeromerge
