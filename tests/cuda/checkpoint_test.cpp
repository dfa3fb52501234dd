// A sequence on the device goes back to where it was, or into another sequence, as the host's does.
#include <gtest/gtest.h>

#include "support/cache_pair.hpp"

namespace zeromerge::test {
namespace {

const Geometry kGeometry{.layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 64};

class DeviceCheckpoint : public DeviceTest {};

TEST_F(DeviceCheckpoint, GoesBackBehindATurnedRingAndForks) {
  auto pair = cache_pair("zeromerge:budget=40,tail=12,residual=2", kGeometry,
                         {.sequences = 2, .longest = 400}, 400, 1);
  pair.prompt(0, 90);
  pair.prompt(1, 50);
  pair.steps({0, 1}, 25);
  const auto then = pair.checkpoint(0);
  pair.steps({0}, 40);
  pair.prompt(0, 60);
  pair.finish(0);
  pair.rollback(then, 0);
  pair.expect_equal_heads(1.0 / 512);
  pair.steps({0, 1}, 30);
  pair.rollback(then, 0);  // again
  pair.rollback(then, 1);  // and forked
  pair.expect_equal_heads(1.0 / 512);
  pair.steps({1, 0}, 30);
  pair.expect_equal_heads(1.0 / 512);
}

// The middle of a prompt, with the queries that its end will ask.
TEST_F(DeviceCheckpoint, GoesBackIntoAPrompt) {
  auto pair = cache_pair("snapkv:budget=72", kGeometry, {}, 400, 2);
  const auto nothing = pair.checkpoint(0);
  pair.prompt(0, 100);
  const auto then = pair.checkpoint(0);
  pair.prompt(0, 50);
  pair.steps({0}, 20);
  pair.rollback(then, 0);
  pair.steps({0}, 20);
  pair.expect_equal_heads(1.0 / 512);
  pair.rollback(nothing, 0);
  pair.prompt(0, 80);
  pair.steps({0}, 20);
  pair.expect_equal_heads(1.0 / 512);
}

TEST_F(DeviceCheckpoint, LeavesCapturedStepsValidAndCountsItsBytes) {
  auto pair = cache_pair("zeromerge:budget=40,tail=12", kGeometry, {.longest = 300}, 300, 3);
  pair.prompt(0, 70);
  pair.finish(0);
  const std::size_t held = pair.device().bytes().held;
  cuda::OwnedStream stream;
  const cuda::Batch batch = pair.device().batch({0}, stream);
  CacheStep first(kGeometry, 1);
  CacheStep second(kGeometry, 1);
  const cuda::Graph step = cuda::capture(stream, [&] {
    first.decode(pair.device(), 0, batch, stream);
    second.decode(pair.device(), 1, batch, stream);
  });
  {
    const auto then = pair.checkpoint(0);
    EXPECT_EQ(then.device.bytes(), held);
    EXPECT_EQ(pair.device().bytes().held, 2 * held);
    for (std::size_t round = 0; round < 3; ++round) {
      for (std::size_t token = 0; token < 30; ++token) {
        const BatchTokens given = pair.next({0});
        first.fill(given, stream);
        second.fill(given, stream);
        step.replay(stream);
        ASSERT_LT(difference(first.out(stream), pair.expected(0).data()), 1e-3) << token;
        ASSERT_LT(difference(second.out(stream), pair.expected(1).data()), 1e-3) << token;
      }
      pair.rollback(then, 0);
    }
  }
  EXPECT_EQ(pair.device().bytes().held, held);
}

TEST_F(DeviceCheckpoint, IsOfOneCache) {
  auto one = cuda::make_cache("zeromerge:budget=40,tail=12", kGeometry);
  auto other = cuda::make_cache("zeromerge:budget=40,tail=12", kGeometry);
  const auto then = one->checkpoint(0, {});
  EXPECT_THROW(other->rollback(then, 0, {}), Error);
  EXPECT_THROW(one->rollback(then, 1, {}), Error);
  EXPECT_THROW(one->checkpoint(1, {}), Error);
}

}  // namespace
}  // namespace zeromerge::test
