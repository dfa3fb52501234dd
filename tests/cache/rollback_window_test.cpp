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

}  // namespace
}  // namespace zeromerge
