// The calls of a layer: prompts in chunks, scores, refused calls, going back, starting again.
#include "zeromerge/cache/layer.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "support/held.hpp"
#include "support/sequence.hpp"

namespace zeromerge {
namespace {

using test::HeldHead;
using test::HeldLayer;
using test::Random;
using test::Tokens;

const Geometry kGeometry{.query_heads = 6, .kv_heads = 2, .head_dim = 24};

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double worst = 0.0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    worst = std::max(worst, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  return worst;
}

// Feeds tokens [first, first + n) in random chunks; all outputs one after another.
template <class Layer>
std::vector<float> prefill_in_chunks(Layer& layer, const Tokens& t, std::size_t first, std::size_t n,
                                     Random& random) {
  std::vector<float> all;
  for (std::size_t done = 0; done < n;) {
    const std::size_t chunk =
        random.between(1, random.uniform() < 0.5 ? std::min<std::size_t>(7, n - done) : n - done);
    const auto out = test::prefill(layer, t, first + done, chunk);
    all.insert(all.end(), out.begin(), out.end());
    done += chunk;
  }
  return all;
}

// Decayed column sums over the query rows of tokens [0, n), in double: [kv_heads][n].
std::vector<std::vector<double>> expected_scores(const Tokens& t, std::size_t n, double decay) {
  std::vector<std::vector<double>> scores(t.g.kv_heads, std::vector<double>(n));
  for (std::size_t token = 0; token < n; ++token)
    for (std::size_t h = 0; h < t.g.query_heads; ++h) {
      const std::size_t kv = h / t.g.group();
      const test::Attention a = test::attention(
          t.query(token, h), t.g.head_dim, token + 1, static_cast<double>(t.g.attention_scale()), 0.0,
          [&](std::size_t j) { return t.key(j, kv); }, [&](std::size_t j) { return t.value(j, kv); },
          [](std::size_t) { return 0.0; });
      for (std::size_t j = 0; j <= token; ++j)
        scores[kv][j] += std::pow(decay, static_cast<double>(n - 1 - token)) * a.probability[j];
    }
  return scores;
}

// ---- looking without taking

TEST(LayerAttend, GivesWhatDecodeWouldGiveAndChangesNothing) {
  const Tokens t(kGeometry, 120, 21);
  auto cache = test::make("budget=60,residual=3", kGeometry);
  (void)test::prefill(cache.layer(0), t, 0, 100);
  cache.finish_prompt();
  const auto before = test::held_layer(cache.layer(0), 2);
  std::vector<float> out(6 * 24);
  std::vector<float> lse(6);
  cache.layer(0).attend(rows(t.query(100, 0), 1, 6, 24), out_rows(out.data(), 1, 6, 24), lse.data());
  EXPECT_EQ(test::difference(before, test::held_layer(cache.layer(0), 2)), "");
  for (std::size_t h = 0; h < 6; ++h) {
    const auto expected = test::attention_over(before.heads[h / 3], t, 100, h);
    EXPECT_LT(test::row_error(out.data() + h * 24, expected), 1e-5);
    EXPECT_NEAR(static_cast<double>(lse[h]), expected.lse, 1e-5);
  }
}

TEST(LayerAttend, RefusesAnEmptyCacheAndWrongShapes) {
  const Tokens t(kGeometry, 4, 22);
  auto cache = test::make("budget=60", kGeometry);
  std::vector<float> out(6 * 24);
  EXPECT_THROW(cache.layer(0).attend(rows(t.query(0, 0), 1, 6, 24), out_rows(out.data(), 1, 6, 24)), Error);
  (void)test::prefill(cache.layer(0), t, 0, 3);
  EXPECT_THROW(cache.layer(0).attend(rows(t.query(0, 0), 2, 6, 24), out_rows(out.data(), 1, 6, 24)), Error);
}

// ---- scores of a prompt

TEST(LayerScores, ExactOnesAreDecayedColumnSums) {
  const Tokens t(kGeometry, 200, 1);
  for (const double decay : {1.0, 0.98, 0.5}) {
    const auto expected = expected_scores(t, 200, static_cast<double>(static_cast<float>(decay)));
    auto cache = test::make("budget=1000,score=exact,decay=" + std::to_string(decay), kGeometry);
    (void)test::prefill(cache.layer(0), t, 0, 200);
    for (std::size_t h = 0; h < 2; ++h)
      for (std::size_t j = 0; j < 200; ++j)
        ASSERT_NEAR(cache.layer(0).head(h).score()[j], expected[h][j], 1e-5 * (1.0 + expected[h][j]))
            << decay << " " << j;
  }
}

TEST(LayerScores, ABoundedTailStaysWithinItsBoundOfTheTotal) {
  for (const std::size_t n : {300u, 1200u}) {
    const Tokens t(kGeometry, n, 2);
    auto exact = test::make("budget=100000,score=exact", kGeometry);
    auto tail = test::make("budget=100000", kGeometry);
    (void)test::prefill(exact.layer(0), t, 0, n);
    (void)test::prefill(tail.layer(0), t, 0, n);
    exact.finish_prompt();
    tail.finish_prompt();
    for (std::size_t h = 0; h < 2; ++h) {
      const HeldHead a = test::held(exact.layer(0).head(h));
      const HeldHead b = test::held(tail.layer(0).head(h));
      const double total = std::accumulate(a.score.begin(), a.score.end(), 0.0);
      double apart = 0.0;
      for (std::size_t j = 0; j < n; ++j) {
        ASSERT_NEAR(b.score[j], a.score[j], 1e-4 * total) << "entry " << j;
        apart += static_cast<double>(b.score[j]) - static_cast<double>(a.score[j]);
      }
      // The rows left out carry 1e-4, where there are any; the others are scored with queries rounded to f16.
      EXPECT_LE(std::abs(apart), (n > 456 ? 1e-4 + 5e-5 : 5e-5) * total) << n;
    }
  }
}

TEST(LayerScores, ADecodedTokenDecaysAllAndAddsItsAttention) {
  const Tokens t(kGeometry, 130, 3);
  auto cache = test::make("budget=40,residual=2", kGeometry);
  auto& layer = cache.layer(0);
  (void)test::prefill(layer, t, 0, 100);
  layer.finish_prompt();
  for (std::size_t token = 100; token < 130; ++token)
    for (std::size_t h = 0; h < 2; ++h) {
      const HeldHead before = test::with_token(test::held(layer.head(h)), t, token, h);
      std::vector<double> expected(before.score.begin(), before.score.end());
      for (double& s : expected) s *= static_cast<double>(0.98f);
      for (std::size_t g = 0; g < 3; ++g) {
        const auto a = test::attention_over(before, t, token, h * 3 + g);
        for (std::size_t j = 0; j < before.size; ++j) expected[j] += a.probability[j];
      }
      if (h == 0) continue;  // decode below once per token, when both heads have been seen
      (void)test::decode(layer, t, token);
      const HeldHead after = test::held(layer.head(h));
      // Plain entries are recognised by their position; a merged one keeps the larger score.
      std::size_t found = 0;
      for (std::size_t j = 0; j < after.size; ++j)
        for (std::size_t i = 0; i < before.size; ++i)
          if (after.position[j] == before.position[i] && after.mass[j] == 1.0f && before.mass[i] == 1.0f) {
            ASSERT_NEAR(after.score[j], expected[i], 1e-5);
            ++found;
          }
      ASSERT_GE(found, 37u);
    }
}

// ---- chunks

// `bound`: what a tail may leave out, which depends on where the calls end.
void expect_chunks_equal_the_whole(const std::string& settings, std::size_t n, float bound = 1e-5f) {
  SCOPED_TRACE(settings + ", prompt of " + std::to_string(n));
  Random random(n);
  const Tokens t(kGeometry, n + 20, n);
  auto whole = test::make(settings, kGeometry);
  const auto expected = test::prefill(whole.layer(0), t, 0, n);
  for (int round = 0; round < 4; ++round) {
    auto cache = test::make(settings, kGeometry);
    auto& layer = cache.layer(0);
    const auto out = prefill_in_chunks(layer, t, 0, n, random);
    EXPECT_LE(largest_difference(out, expected), 1e-5);
    auto again = test::make(settings, kGeometry);
    (void)test::prefill(again.layer(0), t, 0, n);
    layer.finish_prompt();
    again.layer(0).finish_prompt();
    for (std::size_t token = n; token <= n + 20; ++token) {
      for (std::size_t h = 0; h < kGeometry.kv_heads; ++h) {
        const HeldHead a = test::held(again.layer(0).head(h));
        const HeldHead b = test::held(layer.head(h));
        ASSERT_EQ(a.position, b.position) << "token " << token << " head " << h;
        ASSERT_EQ(a.mass, b.mass);
        for (std::size_t j = 0; j < a.size; ++j)
          ASSERT_NEAR(b.score[j], a.score[j], bound * (1.0f + a.score[j]));
      }
      if (token == n + 20) break;
      ASSERT_LE(largest_difference(test::decode(layer, t, token), test::decode(again.layer(0), t, token)),
                1e-5);
    }
  }
}

TEST(LayerChunks, AnyChunkingGivesTheWholePromptsResult) {
  for (const std::size_t n : {90u, 301u, 700u}) {
    expect_chunks_equal_the_whole("budget=50,residual=3,score=exact", n);
    expect_chunks_equal_the_whole("budget=50,residual=3", n, 1e-3f);
  }
  expect_chunks_equal_the_whole("budget=50,decay=0.8", 301, 1e-3f);  // a tail much shorter than the prompt
  expect_chunks_equal_the_whole("budget=50,importance=mean", 301);
  expect_chunks_equal_the_whole("budget=50,heads=adaptive,residual=10%", 301);
  expect_chunks_equal_the_whole("budget=20%,merge=drop", 301);
  expect_chunks_equal_the_whole("budget=50,reference=1", 301);
  expect_chunks_equal_the_whole("budget=10000", 301);
}

TEST(LayerChunks, BoundedModeGivesTheSameHoweverTheCallsAreCutAtItsChunks) {
  const Tokens t(kGeometry, 520, 4);
  CacheOptions options;
  options.chunk = 64;
  for (const char* settings :
       {"budget=60,residual=3,bounded=1", "budget=20%,heads=adaptive,bounded=1,residual=10%"}) {
    auto whole = test::make(settings, kGeometry, options);
    auto parts = test::make(settings, kGeometry, options);
    const auto expected = test::prefill(whole.layer(0), t, 0, 500);
    std::vector<float> all;
    for (const auto& [first, n] : {std::pair<std::size_t, std::size_t>{0, 128}, {128, 64}, {192, 308}}) {
      const auto out = test::prefill(parts.layer(0), t, first, n);
      all.insert(all.end(), out.begin(), out.end());
    }
    EXPECT_TRUE(test::same_bits(all, expected));
    EXPECT_EQ(test::difference(test::held_layer(whole.layer(0), 2), test::held_layer(parts.layer(0), 2)), "");
    for (std::size_t token = 500; token < 520; ++token)
      EXPECT_TRUE(
          test::same_bits(test::decode(whole.layer(0), t, token), test::decode(parts.layer(0), t, token)));
  }
}

TEST(LayerChunks, AnEmptyChunkChangesNothing) {
  const Tokens t(kGeometry, 60, 5);
  auto cache = test::make("budget=32", kGeometry);
  (void)test::prefill(cache.layer(0), t, 0, 50);
  (void)test::decode(cache.layer(0), t, 50);
  const HeldLayer before = test::held_layer(cache.layer(0), 2);
  (void)test::prefill(cache.layer(0), t, 51, 0);
  EXPECT_EQ(test::difference(test::held_layer(cache.layer(0), 2), before), "");
  EXPECT_FALSE(cache.layer(0).in_prompt());
}

TEST(LayerChunks, DecodingWithoutAPromptStartsFromNothing) {
  const Tokens t(kGeometry, 120, 6);
  auto cache = test::make("budget=40,residual=2", kGeometry);
  for (std::size_t token = 0; token < 120; ++token) {
    (void)test::decode(cache.layer(0), t, token);
    ASSERT_EQ(cache.layer(0).tokens(), token + 1);
    ASSERT_EQ(cache.layer(0).head(0).size(), std::min<std::size_t>(token + 1, 40));
  }
}

// ---- refused calls

struct BadCall {
  std::string name;
  std::string expected;  // in the text
  std::function<void(Tokens&)> spoil;
};

// Every state a layer can be in: what it holds, and what it does next, must not depend on a refused call.
template <class K>
void expect_refusals_change_nothing(std::size_t decoded) {
  const Tokens good(kGeometry, 80, 7);
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::vector<BadCall> calls;
  const std::size_t at = (60 + decoded) * kGeometry.head_dim;
  for (const float bad : {std::nanf(""), kInfinity, -kInfinity}) {
    calls.push_back({"q", "q: a value is not finite", [=](Tokens& t) { t.q[at * 6 + 100] = bad; }});
    calls.push_back({"k", "k: a value is not finite", [=](Tokens& t) { t.k[at * 2 + 47] = bad; }});
    calls.push_back({"v", "v: a value is not finite", [=](Tokens& t) { t.v[at * 2] = bad; }});
  }
  if (storage_of<K> == StorageType::f16) {
    calls.push_back({"k overflow", "k: a value of magnitude 70000 exceeds",
                     [=](Tokens& t) { t.k[at * 2 + 3] = -70000.0f; }});
    calls.push_back(
        {"v overflow", "store it as bf16 or f32", [=](Tokens& t) { t.v[at * 2 + 3] = 70000.0f; }});
  }
  if (storage_of<K> == StorageType::bf16)
    calls.push_back({"k overflow", "k: a value of magnitude", [=](Tokens& t) { t.k[at * 2 + 3] = 3.4e38f; }});
  calls.push_back({"q overflow", "scale the queries down", [=](Tokens& t) { t.q[at * 6 + 3] = 1e6f; }});

  const auto fed = [&] {
    auto cache = test::make<K>("budget=40,residual=2", kGeometry);
    (void)test::prefill(cache.layer(0), good, 0, 60);
    for (std::size_t i = 0; i < decoded; ++i) (void)test::decode(cache.layer(0), good, 60 + i);
    return cache;
  };
  const std::size_t next = 60 + decoded;
  for (const BadCall& call : calls) {
    SCOPED_TRACE(call.name + " in " + element_name(element_of<K>) + " after " + std::to_string(decoded));
    Tokens bad = good;
    call.spoil(bad);
    for (const std::size_t n : {1u, 5u}) {
      auto cache = fed();
      auto twin = fed();
      auto& layer = cache.layer(0);
      const HeldLayer before = test::held_layer(layer, 2);
      const std::size_t bytes = cache.bytes().held;
      try {
        (void)(n == 1 ? test::decode(layer, bad, next) : test::prefill(layer, bad, next, n));
        ADD_FAILURE() << "nothing was thrown";
      } catch (const Error& error) {
        EXPECT_NE(std::string(error.what()).find(call.expected), std::string::npos) << error.what();
      }
      EXPECT_EQ(test::difference(test::held_layer(layer, 2), before), "");
      EXPECT_EQ(cache.bytes().held, bytes);
      const auto after = n == 1 ? test::decode(layer, good, next) : test::prefill(layer, good, next, n);
      const auto same =
          n == 1 ? test::decode(twin.layer(0), good, next) : test::prefill(twin.layer(0), good, next, n);
      EXPECT_TRUE(test::same_bits(after, same));
      EXPECT_TRUE(test::same_bits(test::decode(layer, good, 79), test::decode(twin.layer(0), good, 79)));
      EXPECT_EQ(test::difference(test::held_layer(layer, 2), test::held_layer(twin.layer(0), 2)), "");
    }
  }
}

TEST(LayerRefusals, ValuesThatCannotBeKeptChangeNothing) {
  for (const std::size_t decoded : {0u, 10u}) {
    expect_refusals_change_nothing<float>(decoded);
    expect_refusals_change_nothing<f16>(decoded);
    expect_refusals_change_nothing<bf16>(decoded);
  }
}

TEST(LayerRefusals, WrongShapesChangeNothingAndDoNotEndThePrompt) {
  const Tokens t(kGeometry, 70, 8);
  auto cache = test::make("budget=40,residual=2", kGeometry);
  auto& layer = cache.layer(0);
  (void)test::prefill(layer, t, 0, 60);
  const HeldLayer before = test::held_layer(layer, 2);
  std::vector<float> out(6 * 24 * 5);
  const auto q = [&](std::size_t n) { return t.queries(60, n); };
  const auto k = [&](std::size_t n) { return t.keys(60, n); };
  const auto v = [&](std::size_t n) { return t.values(60, n); };
  const auto o = [&](std::size_t n) { return out_rows(out.data(), n, 6, 24); };
  const RowView none{nullptr, Element::f32, 1, 2, 24, 0, 0};
  RowView heads = q(1);
  heads.heads = 5;
  RowView dims = k(1);
  dims.head_dim = 23;
  EXPECT_THROW(layer.decode(q(2), k(2), v(1), o(2)), Error);
  EXPECT_THROW(layer.decode(q(0), k(0), v(0), o(0)), Error);
  EXPECT_THROW(layer.decode(q(1), k(2), v(1), o(1)), Error);
  EXPECT_THROW(layer.decode(q(1), k(1), v(1), o(2)), Error);
  EXPECT_THROW(layer.decode(heads, k(1), v(1), o(1)), Error);
  EXPECT_THROW(layer.decode(q(1), dims, v(1), o(1)), Error);
  EXPECT_THROW(layer.decode(q(1), none, v(1), o(1)), Error);
  EXPECT_THROW(layer.decode(q(1), k(1), v(1), OutView{nullptr, 1, 6, 24, 0, 0}), Error);
  EXPECT_THROW(layer.prefill(q(3), k(2), v(3), o(3)), Error);
  EXPECT_THROW(layer.prefill(q(3), k(3), v(4), o(3)), Error);
  EXPECT_THROW(layer.prefill(q(3), k(3), v(3), o(4)), Error);
  EXPECT_THROW(layer.extend(k(3), v(2)), Error);
  EXPECT_TRUE(layer.in_prompt());
  EXPECT_EQ(test::difference(test::held_layer(layer, 2), before), "");
}

TEST(LayerRefusals, AnImpossibleBudgetEndsNoPromptAndCanBeMetLater) {
  const Tokens t(kGeometry, 420, 9);
  for (const char* score : {"exact", "tail"}) {
    // 10 of 100 tokens cannot hold 12 recent ones; 40 of 400 can.
    const std::string settings = std::string("budget=10%,least=0,tail=12,score=") + score;
    auto cache = test::make(settings, kGeometry);
    auto twin = test::make(settings, kGeometry);
    auto& layer = cache.layer(0);
    (void)test::prefill(layer, t, 0, 100);
    (void)test::prefill(twin.layer(0), t, 0, 100);
    const HeldLayer before = test::held_layer(layer, 2);
    EXPECT_THROW(layer.finish_prompt(), Error);
    EXPECT_THROW((void)test::decode(layer, t, 100), Error);
    EXPECT_TRUE(layer.in_prompt());
    EXPECT_EQ(test::difference(test::held_layer(layer, 2), before), "");
    EXPECT_TRUE(
        test::same_bits(test::prefill(layer, t, 100, 300), test::prefill(twin.layer(0), t, 100, 300)));
    EXPECT_TRUE(test::same_bits(test::decode(layer, t, 400), test::decode(twin.layer(0), t, 400)));
    EXPECT_EQ(layer.head(0).size(), 40u);
  }
}

TEST(LayerRefusals, AnImpossibleBudgetInBoundedModeIsSeenBeforeTheFirstChunk) {
  const Tokens t(kGeometry, 400, 10);
  CacheOptions options;
  options.chunk = 64;
  for (const char* heads : {"uniform", "adaptive"}) {
    auto cache =
        test::make(std::string("budget=10%,least=0,tail=12,bounded=1,heads=") + heads, kGeometry, options);
    EXPECT_THROW((void)test::prefill(cache.layer(0), t, 0, 400), Error);
    EXPECT_EQ(cache.layer(0).tokens(), 0u);
    EXPECT_EQ(cache.bytes().held, 0u);
  }
}

TEST(LayerRefusals, NoHeadOfAnAdaptiveBudgetGetsTooFew) {
  // The mean of 40 is possible, a fifth of it is not: 12 recent, 4 sinks, a residual entry and a candidate
  // need 18.
  const Tokens t(kGeometry, 330, 11);
  for (const char* score : {"exact", "tail"}) {
    auto cache = test::make(std::string("budget=40,least=0,tail=12,heads=adaptive,floor=0%,score=") + score,
                            kGeometry);
    (void)test::run(cache.layer(0), t, 300);
    EXPECT_GE(std::min(cache.layer(0).head(0).size(), cache.layer(0).head(1).size()), 18u);
    EXPECT_EQ(cache.layer(0).head(0).size() + cache.layer(0).head(1).size(), 80u);
  }
}

// ---- going back and starting again

TEST(LayerTruncate, ForgettingTheEndGivesWhatAShorterPromptHolds) {
  const Tokens t(kGeometry, 120, 12);
  for (const char* settings :
       {"budget=1000", "budget=40,residual=3", "budget=40,merge=drop", "budget=40,reference=1"}) {
    SCOPED_TRACE(settings);
    auto cache = test::make(settings, kGeometry);
    auto& layer = cache.layer(0);
    (void)test::prefill(layer, t, 0, 30);
    layer.finish_prompt();
    for (std::size_t token = 30; token < 36; ++token) (void)test::decode(layer, t, token);
    ASSERT_TRUE(layer.can_truncate());
    layer.truncate(20);
    EXPECT_EQ(layer.tokens(), 20u);
    for (std::size_t h = 0; h < 2; ++h) {
      const HeldHead head = test::held(layer.head(h));
      ASSERT_EQ(head.size, 20u);
      for (std::size_t j = 0; j < 20; ++j) {
        ASSERT_EQ(head.position[j], j);
        ASSERT_TRUE(std::equal(t.key(j, h), t.key(j, h) + 24,
                               head.key.begin() + static_cast<std::ptrdiff_t>(j * 24)));
      }
    }
    // Outputs from here on are those of a layer that never saw the rest.
    auto fresh = test::make(settings, kGeometry);
    (void)test::prefill(fresh.layer(0), t, 0, 20);
    EXPECT_LE(largest_difference(test::prefill(layer, t, 50, 15), test::prefill(fresh.layer(0), t, 50, 15)),
              1e-6);
  }
}

TEST(LayerTruncate, IsPossibleExactlyWhileTheFirstSlotsAreTheFirstTokens) {
  const Tokens t(kGeometry, 120, 13);
  for (const char* settings : {"budget=40,residual=3,rollback=0", "budget=40,merge=drop,rollback=0",
                               "budget=40,reference=1,rollback=0"}) {
    SCOPED_TRACE(settings);
    for (std::size_t last = 20; last < 60; ++last) {
      auto cache = test::make(settings, kGeometry);
      auto& layer = cache.layer(0);
      (void)test::prefill(layer, t, 0, 20);
      for (std::size_t token = 20; token < last; ++token) (void)test::decode(layer, t, token);
      bool in_order = true;
      for (std::size_t h = 0; h < 2; ++h) {
        in_order = in_order && layer.head(h).size() == last;
        for (std::size_t j = 0; j < layer.head(h).size(); ++j)
          in_order = in_order && layer.head(h).position()[j] == j;
      }
      if (layer.can_truncate()) {
        ASSERT_TRUE(in_order) << last;
        layer.truncate(10);
        ASSERT_EQ(layer.head(1).size(), 10u);
      } else {
        ASSERT_GT(last, 37u);
        const HeldLayer before = test::held_layer(layer, 2);
        ASSERT_THROW(layer.truncate(10), Error);
        ASSERT_EQ(test::difference(test::held_layer(layer, 2), before), "");
      }
    }
  }
}

TEST(LayerTruncate, MoreTokensThanThereAreAreRefused) {
  const Tokens t(kGeometry, 20, 14);
  auto cache = test::make("budget=1000", kGeometry);
  (void)test::prefill(cache.layer(0), t, 0, 20);
  EXPECT_THROW(cache.layer(0).truncate(21), Error);
  EXPECT_EQ(cache.layer(0).tokens(), 20u);
}

TEST(LayerTruncate, QueriesOfForgottenTokensKeepTheirPartInTheScores) {
  const Tokens t(kGeometry, 120, 15);
  auto cache = test::make("budget=1000", kGeometry);
  (void)test::prefill(cache.layer(0), t, 0, 110);
  std::vector<HeldHead> before;
  for (std::size_t h = 0; h < 2; ++h) before.push_back(test::held(cache.layer(0).head(h)));
  cache.layer(0).truncate(80);
  for (std::size_t h = 0; h < 2; ++h) {
    const HeldHead head = test::held(cache.layer(0).head(h));
    ASSERT_EQ(head.size, 80u);
    for (std::size_t j = 0; j < 80; ++j) EXPECT_EQ(head.score[j], before[h].score[j]);
  }
}

TEST(LayerClear, AClearedLayerHoldsNothingAndActsLikeANewOne) {
  const Tokens t(kGeometry, 150, 16);
  for (const char* settings : {"budget=40,residual=3", "budget=10%,heads=adaptive", "budget=40,reference=1",
                               "budget=40,bounded=1"}) {
    SCOPED_TRACE(settings);
    auto used = test::make(settings, kGeometry);
    auto fresh = test::make(settings, kGeometry);
    (void)test::run(used.layer(0), t, 100);
    used.layer(0).clear();
    EXPECT_EQ(used.bytes().held, 0u);
    EXPECT_EQ(used.layer(0).tokens(), 0u);
    EXPECT_TRUE(used.layer(0).in_prompt());
    EXPECT_TRUE(test::same_bits(test::run(used.layer(0), t, 110), test::run(fresh.layer(0), t, 110)));
    EXPECT_EQ(test::difference(test::held_layer(used.layer(0), 2), test::held_layer(fresh.layer(0), 2)), "");
  }
}

TEST(LayerExtend, TakesTokensWithoutQueriesThatLaterOnesSeeExactly) {
  const Tokens t(kGeometry, 90, 17);
  auto extended = test::make("budget=1000", kGeometry);
  auto fed = test::make("budget=1000", kGeometry);
  extended.layer(0).extend(t.keys(0, 30), t.values(0, 30));
  extended.layer(0).extend(t.keys(30, 20), t.values(30, 20));
  (void)test::prefill(fed.layer(0), t, 0, 50);
  EXPECT_EQ(extended.layer(0).tokens(), 50u);
  EXPECT_TRUE(extended.layer(0).in_prompt());
  EXPECT_TRUE(
      test::same_bits(test::prefill(extended.layer(0), t, 50, 20), test::prefill(fed.layer(0), t, 50, 20)));
  extended.finish_prompt();
  // Only the rows that came with queries have scored.
  const HeldHead head = test::held(extended.layer(0).head(0));
  double total = std::accumulate(head.score.begin(), head.score.end(), 0.0);
  double expected = 0.0;
  for (int later = 0; later < 20; ++later) expected += 3.0 * std::pow(0.98, later);
  EXPECT_NEAR(total, expected, 1e-3 * expected);
  for (std::size_t token = 70; token < 90; ++token)
    EXPECT_LE(
        largest_difference(test::decode(extended.layer(0), t, token), test::decode(fed.layer(0), t, token)),
        1e-6);
}

TEST(LayerExtend, RefusesWhatCannotBeKept) {
  Tokens t(kGeometry, 20, 18);
  t.v[50] = 70000.0f;
  auto cache = test::make<f16>("budget=1000", kGeometry);
  EXPECT_THROW(cache.layer(0).extend(t.keys(0, 20), t.values(0, 20)), Error);
  EXPECT_EQ(cache.layer(0).tokens(), 0u);
  EXPECT_EQ(cache.bytes().held, 0u);
}

}  // namespace
}  // namespace zeromerge
