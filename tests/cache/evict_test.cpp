// Who leaves: the rules simulated step by step, and laws that hold for any random use of a cache.
#include "zeromerge/cache/evict.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "support/held.hpp"
#include "support/sequence.hpp"
#include "support/simulator.hpp"

namespace zeromerge {
namespace {

using test::HeldHead;
using test::Random;
using test::SimulatedHead;
using test::SimulatorRules;
using test::Tokens;

const Geometry kGeometry{.query_heads = 4, .kv_heads = 2, .head_dim = 16};

// ---- the search

// Against every entry's importance in turn, the first of equals.
TEST(LeastImportant, IsTheFirstOfThoseThatAreWorthLeast) {
  Random random(3);
  for (const float decay : {1.0f, 0.98f, 0.5f})
    for (int round = 0; round < 200; ++round) {
      const ZeroMerge<float> policy{DecayedAttention({.decay = decay, .age_normalised = true}), {}, {}};
      ByteLedger ledger;
      Head<float> head(16, {.score = true}, &ledger);
      const std::size_t n = random.between(1, 90), tokens = random.between(n, 2000);
      head.reserve(n);
      const std::vector<float> row(16);
      for (std::size_t j = 0; j < n; ++j) {
        const bool young = random.uniform() < 0.5;
        head.append(
            row.data(), row.data(),
            static_cast<std::uint32_t>(young ? tokens - random.between(1, std::min<std::size_t>(n, 40))
                                             : random.between(0, tokens - 1)));
        // Coarse, so that there are equals, and nothing at all.
        head.score()[j] = random.uniform() < 0.1
                              ? 0.0f
                              : std::floor(1.0f + 8.0f * static_cast<float>(random.uniform())) / 64.0f;
      }
      const std::size_t first = random.between(0, n - 1), last = random.between(first + 1, n);
      std::size_t expected = first;
      const auto worth = [&](std::size_t j) {
        return policy.score.importance(head.score()[j], tokens - head.position()[j]);
      };
      for (std::size_t j = first; j < last; ++j)
        if (worth(j) < worth(expected)) expected = j;
      ASSERT_EQ(detail::least_important(policy, head, first, last, tokens), expected)
          << "decay " << decay << ", " << n << " entries of " << tokens << " tokens";
    }
}

// ---- against the simulator

std::string text_of(const SimulatorRules& r) {
  const std::string budget = r.share != 0.0 ? std::to_string(r.share) : std::to_string(r.capacity);
  return "budget=" + budget + ",least=" + std::to_string(r.capacity) + ",sinks=" + std::to_string(r.sinks) +
         ",tail=" + std::to_string(r.recent) +
         ",residual=" + std::to_string(std::max<std::size_t>(1, r.residual)) +
         ",alpha=" + std::to_string(r.alpha) + ",decay=" + std::to_string(r.decay) + ",score=exact" +
         (r.drop ? ",merge=drop" : "") + (r.l2 ? ",metric=l2" : "") + (r.sum ? ",update=sum" : "") +
         (r.mean ? ",importance=mean" : "");
}

// Decisions are the same and numbers close; returns false once a choice hung on too little to say so.
bool expect_same_as(const SimulatedHead& simulated, const HeldHead& head, std::size_t dim) {
  if (simulated.gap() < 1e-5) return false;
  const auto expected = simulated.by_position();
  std::vector<std::size_t> slots(head.size);
  std::iota(slots.begin(), slots.end(), std::size_t{0});
  std::sort(slots.begin(), slots.end(), [&](auto a, auto b) { return head.position[a] < head.position[b]; });
  EXPECT_EQ(head.size, expected.size());
  for (std::size_t i = 0; i < expected.size() && !testing::Test::HasFailure(); ++i) {
    const auto& e = expected[i];
    const std::size_t j = slots[i];
    EXPECT_EQ(head.position[j], e.position);
    EXPECT_EQ(head.mass.empty() ? 1.0f : head.mass[j], static_cast<float>(e.mass));
    EXPECT_NEAR(head.score[j], e.score, 1e-5 * (1.0 + e.score));
    for (std::size_t d = 0; d < dim; ++d) {
      EXPECT_NEAR(head.key[j * dim + d], e.key[d], 1e-5);
      EXPECT_NEAR(head.value[j * dim + d], e.value[d], 1e-5);
    }
  }
  return true;
}

// Prompts and decoded tokens in turn: {prompt, decoded, prompt, decoded, ...}. Returns the steps that were
// compared.
std::size_t compare(const SimulatorRules& rules, const std::vector<std::size_t>& turns, std::uint64_t seed,
                    const std::string& settings) {
  const Tokens t(kGeometry, std::accumulate(turns.begin(), turns.end(), std::size_t{0}), seed);
  auto cache = test::make(settings, kGeometry);
  auto& layer = cache.layer(0);
  std::vector<SimulatedHead> simulated = {SimulatedHead(t, 0, rules), SimulatedHead(t, 1, rules)};
  std::size_t token = 0;
  std::size_t steps = 0;
  for (std::size_t turn = 0; turn < turns.size(); ++turn) {
    const bool prompt = turn % 2 == 0;
    if (prompt && turns[turn] > 0) {
      (void)test::prefill(layer, t, token, turns[turn]);
      layer.finish_prompt();
      for (auto& head : simulated) head.prompt(token, turns[turn]);
      token += turns[turn];
    }
    for (std::size_t i = 0; i < (prompt ? 1 : turns[turn]); ++i) {
      std::vector<float> out;
      if (!prompt) {
        out = test::decode(layer, t, token);
        for (auto& head : simulated) head.decode(token);
        ++token;
      }
      for (std::size_t h = 0; h < 2; ++h) {
        SCOPED_TRACE("token " + std::to_string(token) + " head " + std::to_string(h));
        if (!expect_same_as(simulated[h], test::held(layer.head(h)), kGeometry.head_dim)) return steps;
        for (std::size_t g = 0; !out.empty() && g < 2; ++g)
          EXPECT_LE(test::row_error(out.data() + (h * 2 + g) * kGeometry.head_dim, simulated[h].outputs()[g]),
                    1e-5);
        if (testing::Test::HasFailure()) return steps;
      }
      ++steps;
    }
  }
  return steps;
}

TEST(EvictSimulated, EveryStepFollowsTheRules) {
  //                       B  sinks R  T  alpha decay drop   l2     sum    mean
  const SimulatorRules all[] = {{40, 4, 1, 16, 0.6, 0.98, false, false, false, false},
                                {40, 4, 3, 10, 1.0, 0.98, false, false, false, false},
                                {40, 0, 5, 2, 0.6, 0.9, false, true, false, false},
                                {33, 2, 2, 16, 0.0, 1.0, false, true, true, false},
                                {40, 4, 4, 12, 0.6, 1.0, false, false, true, true},
                                {40, 4, 2, 12, 0.6, 0.95, false, false, false, true},
                                {40, 4, 0, 12, 0.0, 0.98, true, false, false, false},
                                {12, 1, 1, 9, 0.6, 0.98, false, false, false, false},
                                {9, 4, 1, 3, 2.0, 0.5, false, false, false, false}};
  std::size_t compared = 0;
  std::size_t wanted = 0;
  for (const SimulatorRules& rules : all)
    for (const std::size_t prompt : {0u, 5u, 30u, 39u, 40u, 41u, 120u}) {
      SCOPED_TRACE(text_of(rules) + " prompt " + std::to_string(prompt));
      compared += compare(rules, {prompt, 70}, prompt + 1, text_of(rules));
      wanted += 71;
      if (HasFailure()) return;
    }
  EXPECT_GT(compared, wanted * 3 / 4);
}

TEST(EvictSimulated, LaterPromptsFollowTheRules) {
  const SimulatorRules all[] = {{40, 4, 1, 16, 0.6, 0.98, false, false, false, false},
                                {40, 4, 1, 12, 1.0, 1.0, false, false, false, true},
                                {40, 4, 0, 12, 0.0, 0.98, true, false, false, false}};
  std::size_t compared = 0;
  for (const SimulatorRules& rules : all)
    for (const auto& turns :
         {std::vector<std::size_t>{60, 20, 50, 20, 1, 10}, {10, 5, 10, 30, 30, 20}, {0, 45, 40, 5}}) {
      SCOPED_TRACE(text_of(rules) + " turns from " + std::to_string(turns[0]));
      compared += compare(rules, turns, turns[0] + 7, text_of(rules));
      if (HasFailure()) return;
    }
  EXPECT_GT(compared, 300u);
}

// The capacity of a share follows the tokens seen; below `least` it is that.
TEST(EvictSimulated, CapacitiesFollowTheTokensSeen) {
  const SimulatorRules all[] = {{20, 4, 1, 9, 0.6, 0.98, false, false, false, false, 0.125},
                                {20, 0, 3, 2, 0.6, 0.9, false, true, false, false, 0.25},
                                {25, 4, 0, 12, 0.0, 0.98, true, false, false, true, 0.125},
                                {12, 1, 1, 9, 0.6, 0.98, false, false, true, false, 0.0625}};
  std::size_t compared = 0;
  for (const SimulatorRules& rules : all)
    for (const std::size_t prompt : {0u, 5u, 19u, 20u, 21u, 160u}) {
      SCOPED_TRACE(text_of(rules) + " prompt " + std::to_string(prompt));
      SimulatorRules from = rules;  // what a prompt of this length leaves
      from.capacity =
          std::max(rules.capacity, static_cast<std::size_t>(rules.share * static_cast<double>(prompt)));
      compared += compare(from, {prompt, 250}, prompt + 1, text_of(rules));
      if (HasFailure()) return;
    }
  EXPECT_GT(compared, 24u * 251u * 3u / 4u);
}

// ---- laws

struct Use {
  std::string settings;
  bool drop;
  bool adaptive;
};

// What must hold of a layer that is not inside a prompt. recent: [kv_heads], how many of the last tokens none
// may miss so far.
template <class K>
void expect_laws(const LayerCache<test::ZeroMergeOf<K>>& layer, const Tokens& kept, const Use& use,
                 std::size_t sinks, std::vector<std::size_t>& recent) {
  for (std::size_t h = 0; h < kept.g.kv_heads; ++h) {
    SCOPED_TRACE("head " + std::to_string(h) + " after " + std::to_string(layer.tokens()) + " tokens");
    const HeldHead head = test::held(layer.head(h));
    const HeadState& state = layer.state(h);
    const Division& d = state.division;
    ASSERT_LE(head.size, d.capacity);
    // A head that grows is given room a tile at a time.
    ASSERT_LE(layer.head(h).capacity(), std::max(d.capacity + kernels::kTile, layer.tokens()));
    ASSERT_LE(state.residuals, d.residual);
    std::vector<char> there(layer.tokens(), 0);
    double mass = 0.0;
    for (std::size_t j = 0; j < head.size; ++j) {
      ASSERT_LT(head.position[j], layer.tokens());
      ASSERT_FALSE(there[head.position[j]]) << "two entries at position " << head.position[j];
      there[head.position[j]] = 1;
      const float m = head.mass.empty() ? 1.0f : head.mass[j];
      mass += static_cast<double>(m);
      ASSERT_GE(m, 1.0f);
      ASSERT_TRUE(std::isfinite(head.score[j]) && head.score[j] >= 0.0f);
      const bool residual = j >= d.sinks && j < d.sinks + state.residuals;
      ASSERT_TRUE(use.adaptive || m == 1.0f || residual) << "slot " << j << " is merged";
      if (m == 1.0f) {
        const float* key = kept.key(head.position[j], h);
        ASSERT_TRUE(std::equal(key, key + kept.g.head_dim,
                               head.key.begin() + static_cast<std::ptrdiff_t>(j * kept.g.head_dim)))
            << "slot " << j;
        const float* value = kept.value(head.position[j], h);
        ASSERT_TRUE(std::equal(value, value + kept.g.head_dim,
                               head.value.begin() + static_cast<std::ptrdiff_t>(j * kept.g.head_dim)));
        ASSERT_TRUE(head.bias.empty() || head.bias[j] == 0.0f);
      }
    }
    if (use.drop) {
      ASSERT_TRUE(head.mass.empty());
    } else {
      ASSERT_EQ(mass, static_cast<double>(layer.tokens()));
    }
    for (std::size_t p = 0; p < std::min(sinks, layer.tokens()); ++p)
      ASSERT_TRUE(there[p]) << "sink " << p << " has gone";
    // A recent area that has grown with the budget may begin with what an earlier, smaller one has lost.
    recent[h] = std::min(recent[h], d.recent);
    for (std::size_t p = layer.tokens() - std::min(recent[h], layer.tokens()); p < layer.tokens(); ++p)
      ASSERT_TRUE(there[p]) << "recent token " << p << " has gone";
  }
}

// A random mix of prompts in chunks and decoded tokens.
template <class K>
void use_at_random(const Use& use, std::uint64_t seed) {
  SCOPED_TRACE(use.settings + " seed " + std::to_string(seed));
  Random random(seed);
  const std::size_t kv_heads = random.between(1, 3);
  const Geometry g{.query_heads = kv_heads * random.between(1, 3),
                   .kv_heads = kv_heads,
                   .head_dim = random.between(1, 20)};
  const Tokens t(g, 700, seed);
  const Tokens kept = t.kept<K>();
  CacheOptions options;
  options.chunk = random.between(20, 100);
  const std::size_t sinks = random.between(0, 6);
  auto cache = test::make<K>(use.settings + ",sinks=" + std::to_string(sinks), g, options);
  auto& layer = cache.layer(0);
  // A head of an adaptive budget has at least 32 entries, 12 of them recent; how few it had between two
  // chunks is not seen here.
  std::vector<std::size_t> recent(kv_heads, use.adaptive ? 12 : t.count);
  for (std::size_t token = 0; token < 600;) {
    if (random.uniform() < 0.3) {
      for (std::size_t chunks = random.between(1, 3); chunks > 0; --chunks) {
        const std::size_t n = std::min(random.between(1, random.uniform() < 0.5 ? 10 : 150), t.count - token);
        (void)test::prefill(layer, t, token, n);
        token += n;
      }
      layer.finish_prompt();
    } else {
      for (std::size_t n = std::min(random.between(1, 60), t.count - token); n > 0; --n, ++token) {
        (void)test::decode(layer, t, token);
        expect_laws(layer, kept, use, sinks, recent);
        if (testing::Test::HasFailure()) return;
      }
    }
    ASSERT_EQ(layer.tokens(), token);
    expect_laws(layer, kept, use, sinks, recent);
    if (testing::Test::HasFailure()) return;
  }
}

TEST(EvictLaws, HoldForAnyUseOfAnyPolicy) {
  const Use uses[] = {{"budget=50,residual=1", false, false},
                      {"budget=50,residual=6", false, false},
                      {"budget=40,residual=30%,metric=l2", false, false},
                      {"budget=20%,residual=10%", false, false},
                      {"budget=10%", false, false},
                      {"budget=50,merge=drop", true, false},
                      {"budget=50,heads=adaptive,residual=20%", false, true},
                      {"budget=20%,heads=adaptive,residual=30%,floor=10%", false, true},
                      {"budget=50,heads=adaptive,merge=drop", true, true},
                      {"budget=50,residual=3,bounded=1", false, false},
                      {"budget=20%,residual=20%,bounded=1", false, false},
                      {"budget=60,heads=adaptive,residual=20%,bounded=1", false, true},
                      {"budget=50,importance=mean,residual=2", false, false},
                      {"budget=50,tail=80%,residual=2,least=0", false, false},
                      {"budget=20%,least=12,tail=30%,residual=15%", false, false},
                      {"budget=30%,least=40,evict=8,merge=drop", true, false}};
  for (const Use& use : uses)
    for (std::uint64_t seed = 1; seed <= 6; ++seed) {
      use_at_random<float>(use, seed);
      if (HasFailure()) return;
    }
  use_at_random<f16>(uses[1], 7);
  use_at_random<f16>(uses[6], 8);
}

TEST(EvictLaws, ThreeHundredTokensNeverExceedTheCapacityNorAllocateOnceItIsReached) {
  const Tokens t(kGeometry, 500, 3);
  for (const std::size_t prompt : {0u, 1u, 49u, 50u, 51u, 200u}) {
    auto cache = test::make("budget=50,residual=4", kGeometry);
    auto& layer = cache.layer(0);
    if (prompt > 0) (void)test::prefill(layer, t, 0, prompt);
    std::size_t bytes = 0;
    for (std::size_t token = prompt; token < prompt + 300; ++token) {
      (void)test::decode(layer, t, token);
      for (std::size_t h = 0; h < 2; ++h) {
        ASSERT_EQ(layer.head(h).size(), std::min<std::size_t>(token + 1, 50));
        ASSERT_LE(layer.head(h).capacity(), std::max<std::size_t>(51, prompt));
      }
      if (token < std::max<std::size_t>(prompt, 50)) continue;
      if (bytes == 0) bytes = cache.bytes().held;
      ASSERT_EQ(cache.bytes().held, bytes) << "prompt " << prompt << " token " << token;
    }
  }
}

TEST(EvictLaws, CapacitiesOfALayerAddUpToTheBudget) {
  const Geometry g{.query_heads = 6, .kv_heads = 6, .head_dim = 8};
  const Tokens t(g, 400, 4);
  for (const char* heads : {"uniform", "adaptive"})
    for (const auto& [budget, entries] :
         {std::pair<const char*, std::size_t>{"50", 50}, {"12.5%", 50}, {"33%", 132}}) {
      auto cache = test::make(std::string("heads=") + heads + ",budget=" + budget, g);
      (void)test::prefill(cache.layer(0), t, 0, 400);
      cache.finish_prompt();
      std::size_t all = 0;
      for (std::size_t h = 0; h < 6; ++h) all += cache.layer(0).head(h).size();
      EXPECT_EQ(all, 6 * entries) << heads << " " << budget;
    }
}

}  // namespace
}  // namespace zeromerge
