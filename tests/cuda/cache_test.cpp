// The cache on the device, or its emulation, against the one on the host: the same tokens, the same outputs,
// the same entries in the same slots.
#include <gtest/gtest.h>

#include <string>

#include "support/cache_pair.hpp"

namespace zeromerge::test {
namespace {

Geometry geometry(std::size_t layers, std::size_t kv_heads, std::size_t group, std::size_t head_dim) {
  return {.layers = layers, .query_heads = kv_heads * group, .kv_heads = kv_heads, .head_dim = head_dim};
}

struct Case {
  const char* name;
  const char* spec;
  std::size_t group = 2;
  std::size_t head_dim = 64;
  std::size_t layers = 1;
};

class DeviceCache : public DeviceTest {};
class EachPolicy : public DeviceTest, public testing::WithParamInterface<Case> {};

// Prompts of different lengths, one of them in chunks and one that fits; steps of all sequences and of some,
// a second prompt behind a turned ring.
TEST_P(EachPolicy, AgreesWithTheHostOverPromptsAndSteps) {
  const Case& c = GetParam();
  auto pair = cache_pair(c.spec, geometry(c.layers, 2, c.group, c.head_dim),
                         {.sequences = 3, .longest = 300, .chunk = 24}, 300, 7);
  const double stored = std::string(c.spec).find("bf16") != std::string::npos ? 1.0 / 128 : 1.0 / 512;
  pair.prompt(0, 100);
  pair.prompt(0, 31);
  pair.prompt(1, 70);
  pair.prompt(2, 9);
  for (const std::size_t s : {0, 1, 2}) pair.finish(s);
  pair.expect_equal_heads(stored);
  pair.steps({0, 1, 2}, 50);
  pair.expect_equal_heads(stored);
  pair.steps({2, 0}, 10);
  pair.prompt(1, 40);
  pair.finish(1);
  pair.expect_equal_heads(stored);
  pair.steps({1, 0, 2}, 20);
  pair.expect_equal_heads(stored);
}

INSTANTIATE_TEST_SUITE_P(
    DeviceCache, EachPolicy,
    testing::Values(Case{"ZeroMerge", "zeromerge:budget=40,tail=12"},
                    Case{"ZeroMergeInBf16", "zeromerge:budget=40,tail=12,storage=bf16", 4},
                    Case{"ZeroMergeInQ8", "zeromerge:budget=40,tail=12,storage=q8", 3, 80},
                    Case{"SeveralResiduals", "zeromerge:budget=40,tail=12,residual=3,metric=l2,update=sum",
                         1},
                    Case{"MeanImportance", "zeromerge:budget=40,importance=mean,decay=0.97,merge=drop"},
                    Case{"Blocks", "zeromerge:budget=40,tail=12,evict=4,residual=2"},
                    Case{"AdaptiveHeads", "zeromerge:budget=40,tail=12,heads=adaptive", 2, 64, 2},
                    Case{"HeavyHitters", "h2o:budget=40"}, Case{"Streaming", "streaming:budget=40"},
                    Case{"Window", "snapkv:budget=72"},
                    Case{"WindowBesideScores", "zeromerge:budget=60,window=50%,tail=12"},
                    Case{"WindowWithAdaptiveHeads", "adakv:budget=72"}, Case{"KeyDiff", "keydiff:budget=60"},
                    Case{"KeyDiffInQ8", "keydiff:budget=60,storage=q8", 3, 80},
                    Case{"KeyDiffBesideScores", "zeromerge:merge=drop,budget=50,keydiff=40%,tail=12"},
                    Case{"KeyDiffWithAdaptiveHeads", "keydiff:budget=60,heads=adaptive,evict=3", 1, 128},
                    Case{"Bounded", "zeromerge:budget=40,tail=12,bounded=1,residual=2"},
                    Case{"BoundedWithAdaptiveHeads", "zeromerge:budget=40,tail=12,bounded=1,heads=adaptive"},
                    Case{"Pyramid", "pyramidkv:budget=72", 2, 64, 2}, Case{"Everything", "full", 1, 32}),
    [](const auto& each) { return std::string(each.param.name); });

TEST_F(DeviceCache, AgreesWithTheHostOverHundredsOfSteps) {
  auto pair =
      cache_pair("zeromerge:budget=48,tail=40%,residual=2", geometry(1, 2, 4, 64), {.sequences = 2}, 600, 1);
  pair.prompt(0, 130);
  pair.prompt(1, 60);
  pair.steps({0, 1}, 400);
  pair.expect_equal_heads(1.0 / 512);
}

// A policy that a device can follow, of random settings.
std::string random_spec(Random& random) {
  const auto one_of = [&](std::initializer_list<const char*> words) {
    return std::string(words.begin()[random.between(0, words.size() - 1)]);
  };
  const std::size_t block = random.between(0, 2) == 0 ? random.between(2, 4) : 1;
  const std::size_t recent = random.between(2, 10);
  const std::size_t residual = random.between(1, 4);
  const std::size_t sinks = random.between(0, 5);
  const std::size_t budget = sinks + recent + residual + block + random.between(1, 30);
  const std::string storage = one_of({"f16", "bf16", "q8"});
  const std::string merge = one_of({"residual", "residual", "drop"});
  // A merged entry that q8 rounds again may be a whole step away where sums differ in their last bit, which
  // is enough for another choice; EachPolicy has a case of it.
  const bool steady = storage != "q8";
  std::string spec = "zeromerge:budget=" + std::to_string(budget) + ",tail=" + std::to_string(recent) +
                     ",sinks=" + std::to_string(sinks) + ",residual=" + std::to_string(residual) +
                     ",evict=" + std::to_string(block) + ",storage=" + storage +
                     ",merge=" + (steady ? merge : "drop") + ",metric=" + one_of({"dot", "l2"}) +
                     ",update=" + one_of({"max", "sum"}) + ",importance=" + one_of({"decayed", "mean"}) +
                     ",decay=" + one_of({"1", "0.98", "0.9"}) + ",score=" + one_of({"tail", "exact"});
  if (random.between(0, 3) == 0) spec += ",window=" + one_of({"30%", "100%"});
  return spec;
}

TEST_F(DeviceCache, AgreesWithTheHostForRandomShapesAndSettings) {
  Random random(17);
  for (std::size_t round = 0; round < 12; ++round) {
    const std::string spec = random_spec(random);
    SCOPED_TRACE("round " + std::to_string(round) + ": " + spec);
    const Geometry g = geometry(1, random.between(1, 3), random.between(1, 5), 8 * random.between(1, 5));
    auto pair = cache_pair(spec, g, {.sequences = 2}, 160, 100 + round);
    for (const std::size_t s : {0, 1}) {
      pair.prompt(s, random.between(1, 60));
      if (random.between(0, 1) == 0) pair.prompt(s, random.between(1, 20));
    }
    pair.steps({0, 1}, random.between(1, 25));
    pair.prompt(1, random.between(1, 20));
    pair.steps({1, 0}, random.between(1, 25));
    pair.expect_equal_heads(1.0 / 128);
    if (HasFailure()) return;
  }
}

TEST_F(DeviceCache, CapsLogitsAndLetsSinksTakePart) {
  Geometry g = geometry(2, 2, 2, 64);
  g.logit_softcap = 3.0f;
  auto pair = cache_pair("zeromerge:budget=40,tail=12", g, {}, 200, 9);
  pair.set_sinks({0.5f, -1.0f, 3.0f, 0.0f});
  pair.prompt(0, 80);
  pair.steps({0}, 30);
  pair.expect_equal_heads(1.0 / 512);
}

TEST_F(DeviceCache, KeepsKeysAndValuesInTypesOfTheirOwn) {
  const Geometry g = geometry(1, 2, 2, 64);
  CachePair<cuda::KvCache<ZeroMergeOf<f16, q8>>> pair(
      "zeromerge:budget=40,tail=12,keys=f16,values=q8",
      std::make_unique<cuda::KvCache<ZeroMergeOf<f16, q8>>>(g, policy<f16, q8>("budget=40,tail=12")), 200, 3);
  pair.prompt(0, 90);
  pair.steps({0}, 60);
  pair.expect_equal_heads(1.0 / 512);
}

TEST_F(DeviceCache, ReplaysACapturedStepForEveryToken) {
  const Geometry g = geometry(2, 2, 2, 64);
  auto pair = cache_pair("zeromerge:budget=40,tail=12", g, {.sequences = 2, .longest = 300}, 300, 5);
  pair.prompt(0, 70);
  pair.prompt(1, 20);
  for (const std::size_t s : {0, 1}) pair.finish(s);
  cuda::OwnedStream stream;
  const cuda::Batch batch = pair.device().batch({0, 1}, stream);
  CacheStep first(g, 2);
  CacheStep second(g, 2);
  const std::size_t plan = pair.device().plan_version();
  // Throws if anything in it allocates or waits.
  const cuda::Graph step = cuda::capture(stream, [&] {
    first.decode(pair.device(), 0, batch, stream);
    second.decode(pair.device(), 1, batch, stream);
  });
  for (std::size_t token = 0; token < 60; ++token) {
    if (token == 40) {  // another prompt does not invalidate it
      pair.prompt(1, 30);
      pair.finish(1);
    }
    const BatchTokens given = pair.next({0, 1});
    first.fill(given, stream);
    second.fill(given, stream);
    step.replay(stream);
    ASSERT_LT(difference(first.out(stream), pair.expected(0).data()), 1e-3) << token;
    ASSERT_LT(difference(second.out(stream), pair.expected(1).data()), 1e-3) << token;
  }
  EXPECT_EQ(pair.device().plan_version(), plan);
  pair.expect_equal_heads(1.0 / 512);
}

// A head holds what its own capacity asks for and not more.
TEST_F(DeviceCache, CountsTheBytesThatItHolds) {
  const Geometry g = geometry(1, 2, 2, 64);
  auto cache = cuda::make_cache("zeromerge:budget=40,tail=12", g);
  const Tokens t(g, 200, 1);
  EXPECT_EQ(cache->bytes().held, 0u);
  prefill_device(*cache, 0, 0, t, 0, 200);
  const std::size_t entry = 2 * 64 * 2 + 4 * 4;  // key, value, score, mass, bias, position
  const std::size_t rounding = 2 * 6 * 16;
  EXPECT_GE(cache->bytes().held, 2 * 200 * entry);
  EXPECT_LE(cache->bytes().held, 2 * 200 * entry + rounding);
  cache->finish_prompt(0, {});
  EXPECT_GE(cache->bytes().held, 2 * 41 * entry);
  EXPECT_LE(cache->bytes().held, 2 * 41 * entry + rounding);
  cache->clear(0, {});
  EXPECT_EQ(cache->bytes().held, 0u);
}

// What a prompt's queries take for as long as they are needed counts too.
TEST_F(DeviceCache, CountsTheQueriesThatItKeeps) {
  const Geometry g = geometry(1, 2, 2, 64);
  auto cache = cuda::make_cache("snapkv:budget=72", g);
  const Tokens t(g, 200, 1);
  prefill_device(*cache, 0, 0, t, 0, 200);
  const std::size_t prompt = cache->bytes().held;
  cache->finish_prompt(0, {});
  const std::size_t query = 4 * 64 * 4 + 4 * 4;  // of all heads in f32, and their sums
  EXPECT_GE(prompt, 2 * 200 * (2 * 64 * 2) + 2 * 32 * query);
  EXPECT_LT(cache->bytes().held, 2 * 73 * (2 * 64 * 2 + 4 * 4) + 2 * 32 * query);
}

// In bounded mode the most that is ever held is the budget and a chunk, twice while it is rewritten.
TEST_F(DeviceCache, BoundsWhatAPromptTakes) {
  const Geometry g = geometry(1, 2, 2, 64);
  auto cache = cuda::make_cache("zeromerge:budget=40,tail=12,bounded=1", g, {.chunk = 30});
  const Tokens t(g, 600, 1);
  prefill_device(*cache, 0, 0, t, 0, 600);
  const std::size_t entry = 2 * 64 * 2 + 4 * 4;
  EXPECT_LE(cache->bytes().peak, 2 * (40 + 30 + 41) * entry + 2 * 2 * 6 * 16);
  EXPECT_LE(cache->bytes().held, 2 * 41 * entry + 2 * 6 * 16);
  EXPECT_EQ(cache->head(0, 0, 1, {}).entries(), 40u);
  auto impossible = cuda::make_cache("zeromerge:budget=5%,least=0,tail=12,bounded=1", g, {.chunk = 30});
  EXPECT_THROW(prefill_device(*impossible, 0, 0, t, 0, 600), Error);
  EXPECT_EQ(impossible->bytes().held, 0u);
}

// A share of all that the sequence has seen, decoded tokens too, decides whether a prompt is possible.
TEST_F(DeviceCache, CountsDecodedTokensBeforeABoundedPrompt) {
  auto pair =
      cache_pair("zeromerge:budget=50%,least=0,sinks=1,tail=4,bounded=1", geometry(1, 2, 2, 64), {}, 200, 6);
  pair.prompt(0, 100);
  pair.steps({0}, 1);
  pair.prompt(0, 7);
  pair.finish(0);
  pair.steps({0}, 1);
  pair.expect_equal_heads(1.0 / 512);
}

// An engine with an attention of its own gives the log-sum-exp.
TEST_F(DeviceCache, ScoresAPromptFromTheEnginesLogSumExp) {
  const Geometry g = geometry(1, 2, 2, 64);
  const Tokens t(g, 90, 2);
  auto whole = cuda::make_cache("zeromerge:budget=40,tail=12", g);
  auto observed = cuda::make_cache("zeromerge:budget=40,tail=12", g);
  prefill_device(*whole, 0, 0, t, 0, 90);
  const Tokens stored = t.kept<f16>();
  std::vector<float> lse;
  for (std::size_t token = 0; token < 90; ++token)
    for (std::size_t h = 0; h < g.query_heads; ++h) {
      double sum = 0.0;
      for (std::size_t j = 0; j <= token; ++j) {
        double dot = 0.0;
        for (std::size_t d = 0; d < 64; ++d)
          dot += static_cast<double>(t.query(token, h)[d]) *
                 static_cast<double>(stored.key(j, h / g.group())[d]);
        sum += std::exp(dot / 8.0);
      }
      lse.push_back(static_cast<float>(std::log(sum)));
    }
  const auto q = uploaded(t.q);
  const auto k = uploaded(t.k);
  const auto v = uploaded(t.v);
  const auto sums = uploaded(lse);
  observed->observe(0, 0, at(q, t.queries(0, 90)), at(k, t.keys(0, 90)), at(v, t.values(0, 90)), sums.data(),
                    {});
  for (auto* cache : {whole.get(), observed.get()}) cache->finish_prompt(0, {});
  for (std::size_t h = 0; h < 2; ++h) {
    const cuda::HeadCopy a = whole->head(0, 0, h, {});
    const cuda::HeadCopy b = observed->head(0, 0, h, {});
    EXPECT_EQ(a.position, b.position);
    for (std::size_t j = 0; j < a.entries(); ++j)
      EXPECT_NEAR(a.score[j], b.score[j], 1e-4 * (1e-3 + a.score[j]));
  }
}

TEST_F(DeviceCache, TakesNoMoreThanAFullHeadHolds) {
  const Geometry g = geometry(1, 1, 2, 64);
  auto cache = cuda::make_cache("full", g, {.longest = 20});
  const Tokens t(g, 30, 4);
  prefill_device(*cache, 0, 0, t, 0, 15);
  cache->finish_prompt(0, {});
  const cuda::Batch batch = cache->batch({0}, {});
  CacheStep buffers(g, 1);
  for (std::size_t token = 15; token < 30; ++token) {
    BatchTokens given;
    given.add(t, token);
    buffers.fill(given, {});
    buffers.decode(*cache, 0, batch, {});
  }
  EXPECT_EQ(cache->head(0, 0, 0, {}).entries(), 20u);
}

std::string refusal(const std::string& spec) {
  try {
    cuda::make_cache(spec, geometry(1, 1, 1, 64), {.longest = 100});
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST_F(DeviceCache, RefusesWhatADeviceCannotFollowAndNamesARemedy) {
  const auto names = [](const std::string& text, const char* word) {
    return text.find(word) != std::string::npos;
  };
  EXPECT_PRED2(names, refusal("zeromerge:replay=50%"), "window=");
  EXPECT_PRED2(names, refusal("zeromerge:heads=two-stage"), "heads=uniform");
  EXPECT_PRED2(names, refusal("zeromerge:heads=error"), "heads=uniform");
  EXPECT_PRED2(names, refusal("zeromerge:merge=nearest"), "merge=drop");
  EXPECT_PRED2(names, refusal("zeromerge:groups=clusters"), "groups=arrival");
  EXPECT_PRED2(names, refusal("snapkv:bounded=1"), "bounded=1");
  EXPECT_PRED2(names, refusal("keydiff:merge=residual"), "merge=drop");
  EXPECT_PRED2(names, refusal("kvzip:storage=f16"), "host_prompts");
  EXPECT_PRED2(names, refusal("zeromerge:refit=64"), "refit=");
  EXPECT_PRED2(names, refusal("zeromerge:reference=1"), "reference=1");
  EXPECT_PRED2(names, refusal("zeromerge:storage=q4"), "f16, bf16 or q8");
  EXPECT_PRED2(names, refusal("zeromerge:keys=q8"), "storage=");
  EXPECT_PRED2(names, refusal("nonsense"), "unknown name");
  EXPECT_PRED2(names, refusal("zeromerge:budget=10,tail=8"), "raise the budget");
  EXPECT_EQ(refusal("zeromerge:budget=40"), "");
  EXPECT_THROW(cuda::make_cache("full", geometry(1, 1, 1, 64)),
               Error);  // how long it can become is not known
  EXPECT_THROW(cuda::make_cache("zeromerge", geometry(1, 1, 1, 512)), Error);
}

TEST_F(DeviceCache, RefusesShapesAndSequencesThatItDoesNotHave) {
  const Geometry g = geometry(2, 1, 2, 64);
  auto cache = cuda::make_cache("zeromerge:budget=40", g, {.sequences = 2});
  EXPECT_THROW(cache->batch({0, 0}, {}), Error);
  EXPECT_THROW(cache->batch({2}, {}), Error);
  EXPECT_THROW(cache->batch({}, {}), Error);
  const cuda::Batch batch = cache->batch({0, 1}, {});
  const cuda::Buffer<float> some(2 * 2 * 64);
  const cuda::OutRows out = cuda::out_rows(some.data(), 2, 2, 64);
  const RowView q = rows(some.data(), 2, 2, 64);
  const RowView k = rows(some.data(), 2, 1, 64);
  EXPECT_THROW(cache->decode(2, batch, q, k, k, out, {}), Error);
  EXPECT_THROW(cache->decode(0, batch, k, k, k, out, {}), Error);
  EXPECT_THROW(cache->decode(0, batch, q, q, k, out, {}), Error);
  RowView strided = k;
  strided.token_stride *= 2;
  EXPECT_THROW(cache->decode(0, batch, q, strided, k, out, {}), Error);
  EXPECT_THROW(cache->attend(0, batch, q, out, {}), Error);  // nothing is there yet
  EXPECT_THROW(cache->prefill(0, 2, q, k, k, out, {}), Error);
}

}  // namespace
}  // namespace zeromerge::test
