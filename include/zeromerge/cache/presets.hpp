// Named policies and the text that chooses one:
//
// clang-format off
//   full                     everything is kept
//     storage=f32|f16|bf16|q8|q4       or keys= and values= apart                     f16
//     rollback=                        as below                                       64
//   streaming                StreamingLLM (arXiv 2309.17453): the first tokens and the newest
//     budget= sinks= least= rollback= storage= keys= values=   as below
//   zeromerge                ZeroMerge (arXiv 2503.10714) with residual entries of its own and sinks that stay
//     budget=5% | 410 | 24KiB          entries per head: a share of the tokens seen,  5%
//                                      which heads follow as tokens are decoded, a
//                                      count, or as many as so many bytes hold, all
//                                      that is kept for them counted
//     tail=40% | 160                   the last tokens, always kept: of the budget    40%
//     sinks=4                          the first tokens, always kept                  4
//     residual=1 | 10%                 merged entries per head, a count or a share    1
//     alpha=0.6                        a merged entry's logit gets alpha * ln(mass)   0.6
//     groups=arrival|clusters          merged at a prompt's end: neighbours in time,  arrival
//                                      or near keys
//     decay=0.98                       of a score per query                           0.98 (importance=mean: 1)
//     score=tail|exact                 prompt rows that count: all but 1e-4 of the    tail
//                                      sum, or all
//     importance=decayed|mean          the decayed sum, or per query that could see   decayed
//                                      the entry (with a decay: bias-corrected)
//     heads=uniform|adaptive|profile|two-stage|global|pyramid|error                   uniform
//                                      who gets how many, see below
//     floor=20%                        what every head gets at least, of the uniform  20% adaptive, 25%
//                                      capacity                                       profile, 0% global, 45%
//                                                                                     two-stage by a profile
//     first=30%                        two-stage: kept by the running score in any    30%; by a profile 85%
//                                      case, of the uniform capacity
//     error=0.1                        heads=error: of the output, relative           0.1
//     merge=residual|drop|nearest      what happens to the rest; nearest: its values  residual
//                                      go to the kept entries with the nearest keys
//     gate=0|1                         merge only in heads where that is measured to  0
//                                      help (asks reference queries)
//     update=max|sum                   the score of a merged entry                    max
//     metric=dot|l2                    which residual entry takes a leaver            dot
//     least=32                         a share never asks heads to do with fewer on    32, best 100
//                                      average: shorter sequences are kept whole
//     lowest=32                        where heads differ none has fewer than the      least, best 32
//                                      smaller of this and least
//     local=6% | 60                    what every head has at least where heads       0
//                                      differ: of the tokens seen, or a count, but
//                                      at most 60 % of the uniform capacity
//     bounded=0|1                      compress after every chunk of a prompt         0
//     evict=16                         decoded tokens after which as many leave       1
//     rollback=64                      newest tokens that can be taken back (rejected 64
//                                      drafts), at most 1024; 0: none. What that takes
//                                      comes on top of a budget in bytes. On the host.
//     replay=50% window= far= defensive= expected= keydiff= second=
//                                      one of these: of what a prompt leaves beside   none
//                                      its first and last tokens, chosen by a score
//                                      of whole prompts, see score/; two-stage: of
//                                      what a head has above first=
//     hold=512                         decoded tokens after which half of what a       0
//                                      lasting one of them (replay, far, second)
//                                      chose competes with the rest; 0: none ever
//     norm=0|1                         that score times the length of the value       0
//     refit=0 | 256                    values fitted after the prompt to so many      0
//                                      tokens' queries
//     ridge=0.1                        how strongly they stay where they are          0.1
//     rounding=nearest|queries         of keys in q4: to the nearest code, or so that  nearest
//                                      the logits of refit's queries move least
//     precise=20%                      keys that would be q4 are 8 bits where the      0 (never)
//                                      budget keeps this share of the tokens so; not
//                                      with heads=error
//     reference=0|1                    the reference code to the letter; its own defaults: tail=10%, alpha=1,
//                                      no sinks, exact scores, f32
//     storage= keys= values=           as for full                                    f16
//
//   heads=     uniform    all alike
//              adaptive   the heads of a layer compete (AdaKV)
//              profile    a measured table (profile= names the file)
//              two-stage  first= of the uniform capacity by the running score, the rest to the entries ranked
//                         highest over all heads and layers; with profile=FILE the table shares out the first
//              global     one ranking over all heads and layers, above the floor
//              pyramid    more in the first layers than in the last (PyramidKV)
//              error      as few as keep a head's output within error=; budget= is not used
//
// Presets that are zeromerge with other defaults, all of whose keys they take (cache/preset_table.hpp):
//   h2o         arXiv 2306.14048: attention added up over all queries, half of the budget for the last tokens
//   snapkv      arXiv 2404.14469: what the last 32 tokens look at, pooled
//   pyramidkv   arXiv 2406.02069: the same with a pyramid over the layers
//   adakv       arXiv 2407.11550: the same with the heads of a layer competing
//   keydiff     arXiv 2504.15364: keys unlike the others; also in decode, in blocks of 16
//   expected    arXiv 2510.00636: attention that queries like the prompt's will pay; heads compete
//   defensive   arXiv 2510.13334: the worst case over the last 32 tokens; heads compete
//   kvzip       arXiv 2505.23416: what a second reading of the prompt needs; the engine has to feed it again
//   best        what was measured to be the best: two-stage heads by replay, with the help of a profile if one
//               is given, values refitted, in 4 bits (keys in 8 where much is kept)
// clang-format on
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "zeromerge/cache/any_cache.hpp"
#include "zeromerge/cache/named_policy.hpp"

namespace zeromerge {

// Throws Error unless the text names a policy with valid keys and values; reads a profile's file.
// A template so that the many compositions are compiled only where this is called.
template <class Cache = AnyCache>
std::unique_ptr<Cache> make_cache(const std::string& text, const Geometry& geometry,
                                  CacheOptions options = {}) {
  return detail::with_named_policy(text, [&](auto policy) -> std::unique_ptr<Cache> {
    using P = decltype(policy);
    return std::make_unique<detail::CacheAdapter<P>>(text, geometry, std::move(policy), std::move(options));
  });
}

#if defined(ZEROMERGE_COMPILED)
extern template std::unique_ptr<AnyCache> make_cache<AnyCache>(const std::string&, const Geometry&,
                                                               CacheOptions);
#endif

}  // namespace zeromerge
