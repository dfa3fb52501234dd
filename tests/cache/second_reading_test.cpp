// A second reading of the prompt (KVzip): what it finds, and that it leaves nothing else behind.
#include "zeromerge/cache/second_reading.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "support/attention.hpp"
#include "support/held.hpp"
#include "support/plain_scores.hpp"

namespace zeromerge {
namespace {

using test::PlainPrompt;
using test::Tokens;

constexpr std::size_t kPrompt = 90, kDim = 16;
const Geometry kGeometry{.query_heads = 6, .kv_heads = 2, .head_dim = kDim};
const char* const kByReading = "budget=40,tail=10,merge=drop,second=100%";

CacheOptions with_rope(Executor executor = serial()) {
  CacheOptions options;
  options.executor = std::move(executor);
  options.rope = std::make_shared<Rope>(RopeParams{.dims = kDim}, kDim);
  return options;
}
template <class K = float>
test::Cache<K> made(const std::string& settings, Executor executor = serial()) {
  return test::make<K>(settings, kGeometry, with_rope(std::move(executor)));
}

// The prompt and, behind it, the tokens [first, first + n).
Tokens prompt_and(const Tokens& t, std::size_t first, std::size_t n) {
  Tokens part(kGeometry, kPrompt + n, 1);
  const auto take = [&](const std::vector<float>& from, std::vector<float>& to, std::size_t row) {
    std::copy_n(from.begin(), kPrompt * row, to.begin());
    std::copy_n(from.begin() + static_cast<std::ptrdiff_t>(first * row), n * row,
                to.begin() + static_cast<std::ptrdiff_t>(kPrompt * row));
  };
  take(t.q, part.q, 6 * kDim);
  take(t.k, part.k, 2 * kDim);
  take(t.v, part.v, 2 * kDim);
  return part;
}

template <class Layer>
void expect_maxima(Layer& layer, const std::vector<test::Reals>& expected, const std::string& what) {
  PromptRatings ratings;
  layer.rate_prompt(ratings);
  const Ratings& found = ratings.by_prompt;
  ASSERT_EQ(found.size(), 2u) << what;
  for (std::size_t h = 0; h < 2; ++h) {
    ASSERT_EQ(found[h].size(), kPrompt) << what;
    for (std::size_t j = 0; j < kPrompt; ++j)
      ASSERT_NEAR(found[h][j], expected[h][j], 1e-5) << what << " entry " << j;
  }
}

TEST(SecondReading, FindsTheMostAttentionOfAnyQuery) {
  const Tokens t(kGeometry, kPrompt + 70, 1);
  const PlainPrompt plain(t, kPrompt);
  const std::vector<test::Reals> expected = {plain.second_reading(0, 70), plain.second_reading(1, 70)};
  for (const std::size_t chunk : {70u, 32u, 1u})
    for (const std::size_t workers : {1u, 3u}) {
      auto cache = made(kByReading, workers == 1 ? serial() : threads(workers));
      auto& layer = cache.layer(0);
      (void)test::prefill(layer, t, 0, kPrompt);
      layer.begin_second_reading();
      for (std::size_t i = 0; i < 70; i += chunk)
        (void)test::prefill(layer, t, kPrompt + i, std::min(chunk, 70 - i));
      layer.end_second_reading();
      expect_maxima(layer, expected, "chunks of " + std::to_string(chunk));
    }
}

// An engine may forget a part before it reads the next, within one reading or between two.
TEST(SecondReading, PartsThatDoNotSeeOneAnotherAddUp) {
  const Tokens t(kGeometry, kPrompt + 60, 2);
  std::vector<test::Reals> expected(2, test::Reals(kPrompt, 0.0));
  for (const std::size_t part : {0u, 30u}) {
    const Tokens own = prompt_and(t, kPrompt + part, 30);
    for (std::size_t h = 0; h < 2; ++h) {
      const auto found = PlainPrompt(own, kPrompt).second_reading(h, 30);
      for (std::size_t j = 0; j < kPrompt; ++j) expected[h][j] = std::max(expected[h][j], found[j]);
    }
  }
  auto within = made(kByReading), between = made(kByReading);
  for (auto* cache : {&within, &between}) {
    auto& layer = cache->layer(0);
    (void)test::prefill(layer, t, 0, kPrompt);
    layer.begin_second_reading();
    (void)test::prefill(layer, t, kPrompt, 30);
    if (cache == &within) {
      layer.truncate(kPrompt);
    } else {
      layer.end_second_reading();
      EXPECT_EQ(layer.tokens(), kPrompt);
      layer.begin_second_reading();
    }
    (void)test::prefill(layer, t, kPrompt + 30, 30);
    layer.end_second_reading();
    expect_maxima(layer, expected, cache == &within ? "one reading" : "two readings");
  }
}

TEST(SecondReading, AnswersLikeAnOrdinaryPrompt) {
  const Tokens t(kGeometry, kPrompt + 20, 3);
  auto plain = made("budget=1000");
  auto read = made(kByReading);
  for (auto* cache : {&plain, &read}) (void)test::prefill(cache->layer(0), t, 0, kPrompt);
  read.layer(0).begin_second_reading();
  EXPECT_TRUE(test::same_bits(test::prefill(read.layer(0), t, kPrompt, 20),
                              test::prefill(plain.layer(0), t, kPrompt, 20)));
}

// Whatever the policy: entries, scores and kept queries are as if there had been no reading.
template <class K>
void expect_nothing_changed(const std::string& settings) {
  const Tokens t(kGeometry, kPrompt + 80, 4);
  auto without = made<K>(settings), with = made<K>(settings);
  for (auto* cache : {&without, &with}) (void)test::prefill(cache->layer(0), t, 0, kPrompt);
  const auto before = test::held_layer(with.layer(0), 2);
  with.layer(0).begin_second_reading();
  (void)test::prefill(with.layer(0), t, kPrompt, 40);
  with.layer(0).end_second_reading();
  EXPECT_EQ(test::difference(before, test::held_layer(with.layer(0), 2)), "") << settings;
  for (auto* cache : {&without, &with}) {
    (void)test::prefill(cache->layer(0), t, kPrompt, 20);
    cache->finish_prompt();
    for (std::size_t token = kPrompt + 20; token < kPrompt + 50; ++token)
      (void)test::decode(cache->layer(0), t, token);
  }
  EXPECT_EQ(test::difference(test::held_layer(without.layer(0), 2), test::held_layer(with.layer(0), 2)), "")
      << settings;
}

TEST(SecondReading, LeavesTheStateAsItWas) {
  for (const char* settings : {"budget=40", "budget=40,merge=drop,replay=100%,refit=32", "budget=200",
                               "budget=40,merge=drop,window=50%"}) {
    expect_nothing_changed<float>(settings);
    expect_nothing_changed<q4>(settings);
  }
}

TEST(SecondReading, GoesOnOverAPromptThatWasShortened) {
  const Tokens t(kGeometry, kPrompt + 70, 5);
  const std::vector<test::Reals> expected = {PlainPrompt(t, kPrompt).second_reading(0, 70),
                                             PlainPrompt(t, kPrompt).second_reading(1, 70)};
  auto cache = made(kByReading);
  auto& layer = cache.layer(0);
  (void)test::prefill(layer, t, 0, kPrompt + 10);
  layer.begin_second_reading();
  (void)test::prefill(layer, t, 0, 50);
  layer.truncate(kPrompt);  // within the prompt: what has been noted holds no more
  EXPECT_THROW(layer.end_second_reading(), Error);
  EXPECT_THROW(layer.finish_prompt(), Error);
  layer.begin_second_reading();
  (void)test::prefill(layer, t, kPrompt, 70);
  layer.end_second_reading();
  expect_maxima(layer, expected, "shortened");
}

TEST(SecondReading, IsGivenBackWhenThePromptEnds) {
  const Tokens t(kGeometry, kPrompt + 30, 6);
  auto with = made(kByReading), without = made("budget=40,tail=10,merge=drop");
  for (auto* cache : {&with, &without}) (void)test::prefill(cache->layer(0), t, 0, kPrompt);
  const std::size_t before = with.bytes().held;
  with.layer(0).begin_second_reading();
  EXPECT_GE(with.bytes().held, before + 2 * kPrompt * sizeof(float)) << "what is noted is counted";
  (void)test::prefill(with.layer(0), t, kPrompt, 30);
  with.layer(0).end_second_reading();
  EXPECT_EQ(with.layer(0).bytes(), with.bytes().held);
  with.finish_prompt();
  without.finish_prompt();
  EXPECT_EQ(with.bytes().held, without.bytes().held);
}

// ---- refusals

std::string refusal(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(SecondReading, APolicyThatNeedsOneSaysSoWithNothingChanged) {
  const Tokens t(kGeometry, kPrompt + 30, 7);
  for (const char* settings : {kByReading, "budget=40,tail=10,merge=drop,second=100%,heads=global"}) {
    auto cache = made(settings);
    auto& layer = cache.layer(0);
    (void)test::prefill(layer, t, 0, kPrompt);
    const auto before = test::held_layer(layer, 2);
    const auto expect_refused = [&](const std::function<void()>& call) {
      const std::string said = refusal(call);
      EXPECT_NE(said.find("begin_second_reading"), std::string::npos) << said;
      EXPECT_NE(said.find("replay"), std::string::npos) << said;
      EXPECT_EQ(test::difference(before, test::held_layer(layer, 2)), "");
    };
    expect_refused([&] { layer.finish_prompt(); });
    expect_refused([&] { cache.finish_prompt(); });
    expect_refused([&] { (void)test::decode(layer, t, kPrompt); });
    layer.begin_second_reading();
    (void)test::prefill(layer, t, kPrompt, 20);
    EXPECT_THROW(layer.finish_prompt(), Error) << "the reading goes on";
    layer.end_second_reading();
    EXPECT_EQ(test::difference(before, test::held_layer(layer, 2)), "");
    (void)test::prefill(layer, t, kPrompt, 1);
    EXPECT_THROW(layer.finish_prompt(), Error) << "this token has not been read again";
    layer.truncate(kPrompt);
    EXPECT_NO_THROW(layer.finish_prompt());
  }
}

// One head's entries are all looked at and it keeps every one, the other's none: a question that follows
// takes nothing of that away.
TEST(SecondReading, WhatAHeadKeptWholeStaysWhenAPromptFollows) {
  Tokens t(kGeometry, 2 * kPrompt + 5, 9);
  for (std::size_t i = 0; i < t.count; ++i) {  // of one length, so that each query finds its own
    float* key = t.k.data() + i * 2 * kDim;
    const float length = std::sqrt(kernels::dot(key, key, kDim));
    for (std::size_t d = 0; d < kDim; ++d) key[d] *= 4.0f / length;
  }
  for (std::size_t i = 0; i < kPrompt; ++i)
    for (std::size_t m = 0; m < 6; ++m)
      for (std::size_t d = 0; d < kDim; ++d)
        t.q[((kPrompt + i) * 6 + m) * kDim + d] = m < 3 ? 8.0f * t.k[(i * 2) * kDim + d] : 0.0f;
  auto cache = made("budget=64,tail=6,least=8,heads=global,floor=0%,merge=drop,second=100%");
  auto& layer = cache.layer(0);
  (void)test::prefill(layer, t, 0, kPrompt);
  layer.begin_second_reading();
  (void)test::prefill(layer, t, kPrompt, kPrompt);
  layer.end_second_reading();
  layer.finish_prompt();
  ASSERT_EQ(layer.head(0).size(), kPrompt);
  ASSERT_LT(layer.head(1).size(), kPrompt);
  (void)test::prefill(layer, t, 2 * kPrompt, 5);
  layer.finish_prompt();
  const auto& head = layer.head(0);
  const std::vector<std::uint32_t> held(head.position(), head.position() + head.size());
  for (std::uint32_t position = 0; position < 80; ++position)
    EXPECT_NE(std::find(held.begin(), held.end(), position), held.end()) << position;
}

TEST(SecondReading, NeedsAPromptThatIsStillWhole) {
  const Tokens t(kGeometry, kPrompt + 30, 8);
  auto cache = made("budget=40,merge=drop");
  auto& layer = cache.layer(0);
  EXPECT_THROW(layer.begin_second_reading(), Error) << "empty";
  EXPECT_THROW(layer.end_second_reading(), Error) << "none has begun";
  (void)test::prefill(layer, t, 0, kPrompt);
  EXPECT_THROW(layer.end_second_reading(), Error) << "none has begun";
  layer.begin_second_reading();
  layer.end_second_reading();
  EXPECT_THROW(layer.end_second_reading(), Error) << "it has ended";
  (void)test::decode(layer, t, kPrompt);
  EXPECT_THROW(layer.begin_second_reading(), Error) << "the prompt has ended";
  (void)test::prefill(layer, t, kPrompt + 1, 5);
  EXPECT_THROW(layer.begin_second_reading(), Error) << "entries have left";
  layer.clear();
  (void)test::prefill(layer, t, 0, 20);
  EXPECT_NO_THROW(layer.begin_second_reading());
}

}  // namespace
}  // namespace zeromerge
