// The running score of policies that keep a prompt's queries is brought up to date when the prompt ends: it
// is then what those that add it up call by call have.
#include <gtest/gtest.h>

#include <functional>

#include "support/sequence.hpp"
#include "zeromerge/cache/presets.hpp"

namespace zeromerge {
namespace {

using test::Tokens;

const Geometry kGeometry{.layers = 1, .query_heads = 6, .kv_heads = 2, .head_dim = 24};
// Of the sum all but 1e-4 is in the last 88 rows.
const std::string kRunning = "zeromerge:budget=1000,merge=drop,storage=f32,decay=0.9";
const std::string kKeepsQueries = kRunning + ",window=50%";

using Course = std::function<void(AnyLayer&)>;

// Both policies go the same way; where it ends, their scores are alike. Queries are kept in f16.
void expect_same_scores(const Course& course, const CacheOptions& options = {},
                        const Geometry& geometry = kGeometry) {
  const auto plain = make_cache(kRunning, geometry, options);
  const auto kept = make_cache(kKeepsQueries, geometry, options);
  for (const auto& cache : {plain.get(), kept.get()}) {
    course(cache->layer(0));
    cache->finish_prompt();
  }
  for (std::size_t h = 0; h < 2; ++h) {
    ASSERT_EQ(plain->layer(0).entries(h), kept->layer(0).entries(h));
    float largest = 0.0f;
    for (std::size_t j = 0; j < plain->layer(0).entries(h); ++j) {
      const float expected = plain->layer(0).score(h, j);
      largest = std::max(largest, expected);
      ASSERT_NEAR(kept->layer(0).score(h, j), expected, 2e-3f * expected + 1e-3f)
          << "head " << h << " entry " << j;
    }
    EXPECT_GT(largest, 0.1f);
  }
}

void prefill(AnyLayer& layer, const Tokens& t, std::size_t first, std::size_t count) {
  (void)test::prefill(layer, t, first, count);
}

TEST(TailScore, EqualsThatOfCallByCall) {
  for (const std::size_t length : {1u, 15u, 64u, 87u, 88u, 89u, 200u}) {
    const Tokens t(kGeometry, length, 1);
    expect_same_scores([&](AnyLayer& layer) { prefill(layer, t, 0, length); });
  }
}

TEST(TailScore, OfChunks) {
  const Tokens t(kGeometry, 300, 2);
  for (const std::size_t chunk : {1u, 7u, 50u, 88u, 150u})
    expect_same_scores([&](AnyLayer& layer) {
      for (std::size_t i = 0; i < 300; i += chunk)
        prefill(layer, t, i, std::min<std::size_t>(chunk, 300 - i));
    });
}

TEST(TailScore, WithSinkLogitsAndASoftcap) {
  Geometry capped = kGeometry;
  capped.logit_softcap = 3.0f;
  const Tokens t(capped, 120, 3);
  const std::vector<float> sinks = {0.5f, -1.0f, 2.0f, 0.0f, 1.0f, -2.0f};
  expect_same_scores(
      [&](AnyLayer& layer) {
        layer.set_sink_logits(sinks);
        prefill(layer, t, 0, 70);
        prefill(layer, t, 70, 50);
      },
      {}, capped);
}

TEST(TailScore, OfASecondPromptBehindDecodedTokens) {
  const Tokens t(kGeometry, 200, 4);
  for (const std::size_t second : {10u, 60u, 100u})
    expect_same_scores([&](AnyLayer& layer) {
      prefill(layer, t, 0, 60);
      for (std::size_t i = 60; i < 80; ++i) (void)test::decode(layer, t, i);
      prefill(layer, t, 80, second);
    });
}

TEST(TailScore, BehindAPastWithoutQueries) {
  const Tokens t(kGeometry, 150, 5);
  expect_same_scores([&](AnyLayer& layer) {
    prefill(layer, t, 0, 40);
    layer.extend(t.keys(40, 30), t.values(40, 30));
    prefill(layer, t, 70, 80);
  });
}

// What has been forgotten has no part in them, where it would have had one call by call.
TEST(TailScore, OfWhatIsLeftOfATruncatedPrompt) {
  const Tokens t(kGeometry, 150, 6);
  const auto made = [&](bool truncated) {
    auto cache = make_cache(kKeepsQueries, kGeometry);
    prefill(cache->layer(0), t, 0, 100);
    if (truncated) {
      prefill(cache->layer(0), t, 100, 50);
      cache->layer(0).truncate(100);
    }
    cache->finish_prompt();
    return cache;
  };
  const auto plain = made(false), truncated = made(true);
  for (std::size_t h = 0; h < 2; ++h)
    for (std::size_t j = 0; j < 100; ++j)
      ASSERT_EQ(plain->layer(0).score(h, j), truncated->layer(0).score(h, j)) << h << ", " << j;
}

TEST(TailScore, OfACheckpointWithinAPrompt) {
  const Tokens t(kGeometry, 150, 7);
  auto straight = make_cache(kKeepsQueries, kGeometry), back = make_cache(kKeepsQueries, kGeometry);
  for (auto* cache : {&straight, &back}) prefill((*cache)->layer(0), t, 0, 60);
  const auto checkpoint = back->layer(0).checkpoint();
  back->finish_prompt();
  for (std::size_t i = 60; i < 70; ++i) (void)test::decode(back->layer(0), t, i);
  back->layer(0).rollback(*checkpoint);
  for (auto* cache : {&straight, &back}) {
    prefill((*cache)->layer(0), t, 60, 40);
    (*cache)->finish_prompt();
  }
  for (std::size_t h = 0; h < 2; ++h)
    for (std::size_t j = 0; j < 100; ++j)
      ASSERT_EQ(straight->layer(0).score(h, j), back->layer(0).score(h, j)) << h << ", " << j;
}

TEST(TailScore, HasTheSameBitsForAnyNumberOfThreads) {
  const Tokens t(kGeometry, 300, 8);
  const auto scored = [&](std::size_t n) {
    auto cache = make_cache(kKeepsQueries, kGeometry, {.executor = threads(n)});
    prefill(cache->layer(0), t, 0, 300);
    cache->finish_prompt();
    return cache;
  };
  const auto one = scored(1), three = scored(3);
  for (std::size_t h = 0; h < 2; ++h)
    for (std::size_t j = 0; j < 300; ++j)
      ASSERT_EQ(one->layer(0).score(h, j), three->layer(0).score(h, j)) << h << ", " << j;
}

}  // namespace
}  // namespace zeromerge
