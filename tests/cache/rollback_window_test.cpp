// Taking decoded tokens back: afterwards a layer is, bit for bit, one that has never seen them.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "support/any_layer.hpp"
#include "support/held.hpp"
#include "support/sequence.hpp"

namespace zeromerge {
namespace {

using test::Random;
using test::Tokens;

const Geometry kGeometry{.layers = 1, .query_heads = 4, .kv_heads = 2, .head_dim = 32};

std::unique_ptr<AnyCache> made(const std::string& spec, const Geometry& g = kGeometry) {
  return make_cache(spec, g, test::with_rope(g));
}

// Policies that differ in what a step changes; storage= is appended.
const char* const kPolicies[] = {
    "full:",
    "streaming:budget=40,",
    "streaming:budget=150,",
    "zeromerge:budget=40,",
    "zeromerge:budget=40,residual=4,metric=l2,",
    "zeromerge:budget=200,residual=10%,",
    "zeromerge:budget=40,tail=10,evict=5,residual=3,",
    "zeromerge:budget=150,evict=16,merge=drop,",
    "zeromerge:budget=60,tail=20,evict=32,",
    "zeromerge:budget=40,reference=1,",
    "zeromerge:budget=50,merge=nearest,",
    "zeromerge:budget=80,replay=50%,hold=30,merge=drop,",
    "zeromerge:budget=45,importance=mean,decay=1,",
    "zeromerge:budget=25%,least=12,",
    "zeromerge:budget=25%,least=12,tail=20%,residual=10%,",
    "zeromerge:budget=30%,least=30,tail=40%,evict=6,merge=drop,",
    "h2o:budget=60,",
    "snapkv:budget=80,",
    "best:budget=60,",
    "best:budget=30%,least=40,",
    "best:budget=60,hold=4,precise=1%,",
    "best:budget=130,tail=40,",
    "keydiff:budget=60,",
    "keydiff:budget=100,evict=1,tail=50%,",
    "adakv:budget=80,",
};

std::vector<std::string> specs() {
  std::vector<std::string> all;
  const char* const others[] = {"storage=f16", "storage=bf16", "storage=q8", "keys=q4,values=f16",
                                "keys=q8,values=q4"};
  std::size_t next = 0;
  for (const char* policy : kPolicies)
    for (const char* storage : {"storage=f32", "storage=q4", others[next++ % 5]})
      all.push_back(std::string(policy) + storage);
  return all;
}

class RollbackWindow : public testing::TestWithParam<std::string> {};

INSTANTIATE_TEST_SUITE_P(Policies, RollbackWindow, testing::ValuesIn(specs()),
                         [](const auto& test) { return "spec" + std::to_string(test.index); });

// Rounds of {k rows in one call; the last j of them taken back} against a twin that only ever gets what
// stays. What is rejected are other tokens than those that come in its place.
void expect_rounds_leave_no_trace(const std::string& spec, std::size_t prompt, std::uint64_t seed) {
  SCOPED_TRACE(spec + ", prompt of " + std::to_string(prompt));
  const Tokens t(kGeometry, 420, 3), rejected(kGeometry, 420, seed);
  auto used = made(spec), twin = made(spec);
  AnyLayer &a = used->layer(0), &b = twin->layer(0);
  (void)test::prefill(a, t, 0, prompt);
  (void)test::prefill(b, t, 0, prompt);
  a.finish_prompt();
  b.finish_prompt();
  Random random(seed);
  std::size_t token = prompt;
  while (token + 20 < t.count) {
    const std::size_t kept = random.between(0, 9), dropped = random.between(kept == 0 ? 1 : 0, 9);
    Tokens call(kGeometry, kept + dropped, 1);
    for (std::size_t i = 0; i < kept + dropped; ++i) {
      const Tokens& from = i < kept ? t : rejected;
      std::copy_n(from.query(token + i, 0), 4 * 32, call.q.begin() + static_cast<std::ptrdiff_t>(i * 4 * 32));
      std::copy_n(from.key(token + i, 0), 2 * 32, call.k.begin() + static_cast<std::ptrdiff_t>(i * 2 * 32));
      std::copy_n(from.value(token + i, 0), 2 * 32, call.v.begin() + static_cast<std::ptrdiff_t>(i * 2 * 32));
    }
    auto got = test::decode_rows(a, call, 0, kept + dropped);
    got.resize(kept * 4 * 32);
    ASSERT_TRUE(a.can_truncate(token + kept));
    a.truncate(token + kept);
    if (kept != 0) {
      ASSERT_TRUE(test::same_bits(got, test::decode_rows(b, t, token, kept))) << "token " << token;
    }
    token += kept;
    ASSERT_EQ(a.tokens(), token);
    ASSERT_FALSE(a.in_prompt());
    ASSERT_EQ(test::difference(test::layer_bits(a, kGeometry), test::layer_bits(b, kGeometry)), "")
        << kept << " kept and " << dropped << " dropped, to token " << token;
  }
}

TEST_P(RollbackWindow, RejectedTokensLeaveNoTrace) {
  for (const std::size_t prompt : {3u, 37u, 150u}) {
    expect_rounds_leave_no_trace(GetParam(), prompt, prompt + 11);
    if (HasFatalFailure()) return;
  }
}

// Any number of tokens of the window, of any calls: entries are those of before.
TEST_P(RollbackWindow, EntriesComeBackFromTheWholeWindow) {
  const Tokens t(kGeometry, 420, 5);
  for (const std::size_t prompt : {20u, 160u}) {
    SCOPED_TRACE(GetParam() + ", prompt of " + std::to_string(prompt));
    auto cache = made(GetParam());
    AnyLayer& layer = cache->layer(0);
    (void)test::prefill(layer, t, 0, prompt);
    layer.finish_prompt();
    std::vector<std::vector<test::HeadBits>> before(prompt);  // by the number of tokens
    before.push_back(test::layer_bits(layer, kGeometry));
    Random random(prompt);
    std::size_t token = prompt, window = 0;
    for (int round = 0; round < 5; ++round) {
      for (std::size_t n = random.between(1, 70); n > 0; --n) {
        (void)test::decode(layer, t, token++);
        before.push_back(test::layer_bits(layer, kGeometry));
        window = std::min<std::size_t>(64, window + 1);
      }
      ASSERT_GE(layer.can_take_back(), window);
      const std::size_t dropped = random.between(1, window);
      window -= dropped;
      token -= dropped;
      layer.truncate(token);
      before.resize(token + 1);
      ASSERT_EQ(test::difference(test::layer_bits(layer, kGeometry), before.back(), false), "") << token;
      ASSERT_EQ(layer.tokens(), token);
      ASSERT_FALSE(layer.in_prompt());
    }
  }
}

// ---- tokens of the prompt

// The last token of a prompt goes (an engine evaluates it again) and comes once more.
TEST_P(RollbackWindow, TheLastTokensOfAPromptGoAndComeAgain) {
  const Tokens t(kGeometry, 180, 6);
  for (const std::size_t again : {1u, 2u}) {
    SCOPED_TRACE(GetParam());
    auto cache = made(GetParam());
    AnyLayer& layer = cache->layer(0);
    (void)test::prefill(layer, t, 0, 150);
    layer.finish_prompt();
    const std::size_t entries = layer.entries(0);
    (void)test::decode_rows(layer, t, 150, 9);
    ASSERT_GE(layer.can_take_back(), 9 + again);
    layer.truncate(150 - again);
    ASSERT_FALSE(layer.in_prompt());
    ASSERT_EQ(layer.entries(0), entries - again);
    ASSERT_EQ(layer.position(0, entries - again - 1), 149 - again);
    (void)test::decode_rows(layer, t, 150 - again, 12);
    ASSERT_EQ(layer.tokens(), 162 - again);
    layer.truncate(150);
    ASSERT_EQ(layer.entries(0), entries);
    ASSERT_EQ(layer.position(0, entries - 1), 149u);
  }
}

TEST(RollbackWindowPrompt, TokensOfOneThatHasNotEndedGoWhateverHasLeftBefore) {
  const Tokens t(kGeometry, 200, 7);
  for (const char* spec : {"zeromerge:budget=40,storage=f16", "best:budget=60", "keydiff:budget=60"}) {
    SCOPED_TRACE(spec);
    auto used = made(spec), twin = made(spec);
    for (AnyCache* cache : {used.get(), twin.get()}) {
      (void)test::prefill(cache->layer(0), t, 0, 120);
      (void)test::decode_rows(cache->layer(0), t, 120, 10);
      (void)test::prefill(cache->layer(0), t, 130, 1);
    }
    AnyLayer& layer = used->layer(0);
    (void)test::prefill(layer, t, 150, 20);
    EXPECT_EQ(layer.can_take_back(), 21u);
    EXPECT_FALSE(layer.can_truncate(129));
    EXPECT_THROW(layer.truncate(129), Error);
    layer.truncate(131);
    EXPECT_TRUE(layer.in_prompt());
    EXPECT_EQ(test::difference(test::layer_bits(layer, kGeometry),
                               test::layer_bits(twin->layer(0), kGeometry), false),
              "");
    layer.truncate(130);
    EXPECT_EQ(layer.tokens(), 130u);
  }
}

TEST(RollbackWindowPrompt, WhereNothingHasLeftAnyLengthIsPossibleAndMemoryGoes) {
  const Tokens t(kGeometry, 600, 8);
  for (const char* storage : {"f32", "f16", "q8", "q4"}) {
    SCOPED_TRACE(storage);
    auto cache = made(std::string("zeromerge:budget=1000,storage=") + storage);
    auto fresh = made(std::string("zeromerge:budget=1000,storage=") + storage);
    (void)test::prefill(cache->layer(0), t, 0, 500);
    cache->finish_prompt();
    (void)test::decode_rows(cache->layer(0), t, 500, 40);
    cache->layer(0).truncate(100);
    EXPECT_TRUE(cache->layer(0).in_prompt());
    EXPECT_LT(cache->bytes().held, cache->bytes().peak / 3);
    cache->finish_prompt();
    (void)test::prefill(fresh->layer(0), t, 0, 100);
    fresh->finish_prompt();
    EXPECT_EQ(cache->bytes().held, fresh->bytes().held);
  }
}

// ---- how many

TEST(RollbackWindowSize, IsWhatTheSpecSays) {
  const Tokens t(kGeometry, 300, 9);
  for (const std::size_t window : {0u, 1u, 7u, 64u, 100u}) {
    auto cache = made("zeromerge:budget=40,rollback=" + std::to_string(window));
    AnyLayer& layer = cache->layer(0);
    (void)test::prefill(layer, t, 0, 100);
    for (std::size_t token = 100; token < 300; ++token) (void)test::decode(layer, t, token);
    EXPECT_EQ(layer.can_take_back(), window);
    EXPECT_EQ(layer.can_truncate(300 - window - 1), false);
    const auto before = test::layer_bits(layer, kGeometry);
    try {
      layer.truncate(300 - window - 1);
      ADD_FAILURE() << "nothing was thrown";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("rollback=" + std::to_string(window)), std::string::npos)
          << error.what();
    }
    EXPECT_EQ(test::difference(test::layer_bits(layer, kGeometry), before), "");
    EXPECT_EQ(layer.tokens(), 300u);
    layer.truncate(300 - window);
    EXPECT_EQ(layer.can_take_back(), 0u);
  }
}

TEST(RollbackWindowSize, HasAMaximumThatTheErrorNames) {
  EXPECT_NO_THROW((void)made("zeromerge:budget=40,rollback=1024"));
  for (const char* spec : {"zeromerge:budget=40,rollback=1025", "streaming:rollback=5000",
                           "full:rollback=1e9", "best:rollback=1.5", "full:rollback=-1"})
    EXPECT_THROW((void)made(spec), Error) << spec;
  try {
    (void)made("full:rollback=1025");
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("1024"), std::string::npos) << error.what();
  }
}

TEST(RollbackWindowSize, ALongCallKeepsTheLastTokensOfIt) {
  const Tokens t(kGeometry, 300, 10);
  for (const char* spec : {"zeromerge:budget=40", "best:budget=60", "keydiff:budget=60,rollback=20"}) {
    SCOPED_TRACE(spec);
    auto used = made(spec), twin = made(spec);
    (void)test::prefill(used->layer(0), t, 0, 100);
    (void)test::prefill(twin->layer(0), t, 0, 100);
    (void)test::decode_rows(used->layer(0), t, 100, 200);
    const std::size_t window = used->layer(0).can_take_back();
    EXPECT_EQ(window, std::string(spec).find("=20") == std::string::npos ? 64u : 20u);
    (void)test::decode_rows(twin->layer(0), t, 100, 200 - window);
    used->layer(0).truncate(300 - window);
    EXPECT_EQ(test::difference(test::layer_bits(used->layer(0), kGeometry),
                               test::layer_bits(twin->layer(0), kGeometry)),
              "");
  }
}

// ---- memory

TEST(RollbackWindowMemory, IsTakenWhenTheFirstEntryLeavesAndGoesWithThePrompt) {
  const Geometry g{.layers = 1, .query_heads = 2, .kv_heads = 1, .head_dim = 64};
  const Tokens t(g, 300, 11);
  for (const char* storage : {"f32", "f16", "q8", "q4"}) {
    SCOPED_TRACE(storage);
    const auto held = [&](const char* rollback, std::size_t decoded, bool again) {
      auto cache = make_cache(std::string("streaming:budget=100,storage=") + storage + rollback, g);
      (void)test::prefill(cache->layer(0), t, 0, 60);
      cache->finish_prompt();
      for (std::size_t i = 0; i < decoded; ++i) (void)test::decode(cache->layer(0), t, 60 + i);
      if (again) {
        (void)test::prefill(cache->layer(0), t, 60 + decoded, 10);
        cache->finish_prompt();
      }
      return cache->bytes().held;
    };
    if (storage != std::string("q4")) {
      EXPECT_EQ(held("", 20, false), held(",rollback=0", 20, false));
    }
    EXPECT_GT(held("", 120, false), held(",rollback=0", 120, false));
    EXPECT_EQ(held("", 120, true), held(",rollback=0", 120, true));
  }
}

TEST(RollbackWindowMemory, AnEntryATokenIsWhatItCosts) {
  const Geometry g{.layers = 1, .query_heads = 2, .kv_heads = 1, .head_dim = 64};
  const Tokens t(g, 700, 12);
  const std::pair<const char*, double> rows[] = {{"f32", 512.0}, {"f16", 256.0}, {"q8", 136.0}};
  for (const auto& [name, entry] : rows) {
    const std::string storage = name;
    const auto held = [&](const char* rollback) {
      auto cache = make_cache("streaming:budget=400,storage=" + storage + rollback, g);
      (void)test::prefill(cache->layer(0), t, 0, 500);
      for (std::size_t token = 500; token < t.count; ++token) (void)test::decode(cache->layer(0), t, token);
      return cache->bytes().held;
    };
    const auto each = static_cast<double>(held("") - held(",rollback=0")) / 64.0;
    EXPECT_LT(each, entry + 150.0) << storage;
  }
}

// ---- layers and sequences

TEST(RollbackWindowLayers, AllGoBackOrNone) {
  const Geometry g{.layers = 3, .query_heads = 4, .kv_heads = 2, .head_dim = 32};
  const Tokens t(g, 200, 13);
  auto cache = made("zeromerge:budget=40", g);
  auto twin = made("zeromerge:budget=40", g);
  for (std::size_t l = 0; l < 3; ++l) {
    (void)test::prefill(cache->layer(l), t, 0, 100);
    (void)test::prefill(twin->layer(l), t, 0, 100);
  }
  cache->finish_prompt();
  twin->finish_prompt();
  for (std::size_t l = 0; l < 3; ++l) {
    (void)test::decode_rows(cache->layer(l), t, 100, 10);
    (void)test::decode_rows(twin->layer(l), t, 100, 10);
  }
  // A step that is given up after its first layer.
  (void)test::decode(cache->layer(0), t, 110);
  EXPECT_TRUE(cache->can_truncate(110));
  cache->truncate(110);
  for (std::size_t l = 0; l < 3; ++l)
    EXPECT_EQ(test::difference(test::layer_bits(cache->layer(l), g), test::layer_bits(twin->layer(l), g)),
              "");
  // One layer cannot: none does.
  (void)test::prefill(cache->layer(1), t, 110, 1);
  EXPECT_FALSE(cache->can_truncate(105));
  EXPECT_THROW(cache->truncate(105), Error);
  EXPECT_THROW(cache->truncate(111), Error);
  EXPECT_EQ(cache->layer(0).tokens(), 110u);
  EXPECT_EQ(cache->layer(1).tokens(), 111u);
  cache->truncate(110);
  EXPECT_EQ(cache->layer(1).tokens(), 110u);
}

TEST(RollbackWindowLayers, CheckpointsAndForksKeepIt) {
  const Tokens t(kGeometry, 200, 14);
  for (const char* spec : {"zeromerge:budget=40,storage=f16", "best:budget=60"}) {
    SCOPED_TRACE(spec);
    auto cache = made(spec);
    AnyLayer& layer = cache->layer(0);
    (void)test::prefill(layer, t, 0, 100);
    layer.finish_prompt();
    for (std::size_t token = 100; token < 110; ++token) (void)test::decode(layer, t, token);
    const auto before = test::layer_bits(layer, kGeometry);
    for (std::size_t token = 110; token < 130; ++token) (void)test::decode(layer, t, token);
    const auto checkpoint = layer.checkpoint();
    for (std::size_t token = 130; token < 190; ++token) (void)test::decode(layer, t, token);
    layer.rollback(*checkpoint);
    auto fork = cache->fork();
    for (AnyLayer* at : {&layer, &fork->layer(0)}) {
      ASSERT_GE(at->can_take_back(), 20u);
      at->truncate(110);
      EXPECT_EQ(test::difference(test::layer_bits(*at, kGeometry), before, false), "");
    }
  }
}

}  // namespace
}  // namespace zeromerge
