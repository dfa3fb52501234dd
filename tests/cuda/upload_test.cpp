// Prompts that the host compresses, by any policy, and the device decodes from.
#include <gtest/gtest.h>

#include <string>

#include "support/cache_pair.hpp"

namespace zeromerge::test {
namespace {

const Geometry kUploaded{.layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 64};

struct UploadCase {
  const char* name;
  const char* spec;
};

class Upload : public DeviceTest {};
class EachHostPolicy : public DeviceTest, public testing::WithParamInterface<UploadCase> {};

TEST_P(EachHostPolicy, DecodesAsTheHostWould) {
  auto pair =
      cache_pair(GetParam().spec, kUploaded, {.sequences = 2, .longest = 400, .host_prompts = true}, 300, 11);
  pair.upload(0, 150);
  pair.upload(1, 20);
  pair.expect_equal_heads(1.0 / 512);
  pair.steps({0, 1}, 60);
  pair.expect_equal_heads(1.0 / 512);
  pair.host().clear(1);
  pair.upload(1, 90);  // over what was there
  pair.steps({1, 0}, 30);
  pair.expect_equal_heads(1.0 / 512);
}

INSTANTIATE_TEST_SUITE_P(
    Upload, EachHostPolicy,
    testing::Values(UploadCase{"Best", "best:budget=72,storage=f16"},
                    UploadCase{"BestInQ8", "best:budget=72,storage=q8"},
                    UploadCase{"Expected", "expected:budget=72,storage=f16"},
                    UploadCase{"Defensive", "defensive:budget=72,storage=f16"},
                    UploadCase{"Replay", "zeromerge:budget=72,replay=50%"},
                    UploadCase{"HeldForAWhile", "zeromerge:budget=72,replay=60%,merge=drop,hold=20"},
                    UploadCase{"HeldForAWhileInBlocks",
                               "zeromerge:budget=72,replay=60%,residual=2,hold=9,evict=3"},
                    UploadCase{"GlobalBudget", "zeromerge:budget=72,heads=global"},
                    UploadCase{"KeyClusters", "zeromerge:budget=72,residual=3,groups=clusters,metric=l2"},
                    UploadCase{"KeyDiff", "keydiff:budget=72"},
                    UploadCase{"NearestValues", "zeromerge:budget=72,merge=nearest"},
                    UploadCase{"ZeroMerge", "zeromerge:budget=72"},
                    UploadCase{"Streaming", "streaming:budget=72"}, UploadCase{"Everything", "full"}),
    [](const auto& each) { return std::string(each.param.name); });

// What the host has decoded goes over too: a turned ring stays where it is.
TEST_F(Upload, TakesATurnedRing) {
  auto pair = cache_pair("zeromerge:budget=40,tail=12,residual=2", kUploaded, {.host_prompts = true}, 300, 3);
  pair.upload(0, 90);
  for (std::size_t i = 0; i < 29; ++i) pair.next({0});
  pair.device().upload(0, pair.host(), 0, {});
  pair.expect_equal_heads(1.0 / 512);
  pair.steps({0}, 40);
  pair.expect_equal_heads(1.0 / 512);
}

// What head() gives can be put into another cache.
TEST_F(Upload, GivesHeadsToAnotherCache) {
  auto pair = cache_pair("zeromerge:budget=40,tail=12", kUploaded, {.sequences = 1}, 300, 5);
  pair.prompt(0, 100);
  pair.steps({0}, 20);
  auto other = cuda::make_cache("zeromerge:budget=40,tail=12", kUploaded, {.sequences = 2});
  for (std::size_t l = 0; l < 2; ++l)
    other->put(l, 1, std::vector{pair.device().head(l, 0, 0, {}), pair.device().head(l, 0, 1, {})}, {});
  const cuda::Batch batch = other->batch({1}, {});
  CacheStep buffers(kUploaded, 1);
  for (std::size_t i = 0; i < 30; ++i) {
    buffers.fill(pair.next({0}), {});
    for (std::size_t l = 0; l < 2; ++l) {
      buffers.decode(*other, l, batch, {});
      ASSERT_LT(difference(buffers.out({}), pair.expected(l).data()), 1e-3) << i;
    }
  }
}

TEST_F(Upload, RefusesWhatDoesNotFitWithNothingChanged) {
  const cuda::CacheOptions by_host{.host_prompts = true};
  auto device = cuda::make_cache("best:budget=72,storage=f16", kUploaded, by_host);
  auto host = make_cache("zeromerge:budget=40", kUploaded);
  EXPECT_THROW(device->upload(0, *host, 0, {}), Error);  // in a prompt
  Geometry other = kUploaded;
  other.head_dim = 80;
  EXPECT_THROW(device->upload(0, *make_cache("zeromerge:budget=40", other), 0, {}), Error);
  const Tokens t(kUploaded, 60, 1);
  EXPECT_THROW(prefill_device(*device, 0, 0, t, 0, 10), Error);
  EXPECT_THROW(device->finish_prompt(0, {}), Error);
  for (std::size_t l = 0; l < 2; ++l) prefill(host->layer(l), t, 0, 60);
  host->finish_prompt(0);
  auto heads = cuda::heads_of(host->layer(0), kUploaded);
  EXPECT_THROW(device->put(0, 0, std::span(heads).first(1), {}), Error);
  auto second = make_cache("zeromerge:budget=40", kUploaded);  // its last layer is in a prompt
  for (std::size_t l = 0; l < 2; ++l) prefill(second->layer(l), t, 0, 60);
  second->layer(0).finish_prompt();
  EXPECT_THROW(device->upload(0, *second, 0, {}), Error);
  EXPECT_EQ(device->bytes().held, 0u);
  auto full = make_cache("full", kUploaded);
  for (std::size_t l = 0; l < 2; ++l) prefill(full->layer(l), t, 0, 60);
  full->finish_prompt(0);
  EXPECT_THROW(device->upload(0, *full, 0, {}), Error);  // it can become of any length
  heads[1].keys.pop_back();
  EXPECT_THROW(device->put(0, 0, heads, {}), Error);
  heads[1].keys.push_back(0.0f);
  heads[0].state.recent = heads[0].state.capacity;
  EXPECT_THROW(device->put(0, 0, heads, {}), Error);
  heads[0].state.recent = 10;
  heads[0].state.capacity = 20;
  EXPECT_THROW(device->put(0, 0, heads, {}), Error);
  EXPECT_EQ(device->bytes().held, 0u);
}

}  // namespace
}  // namespace zeromerge::test
