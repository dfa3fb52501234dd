// Contexts side by side: their rotations, their threads, what others may ask meanwhile.
#include <atomic>
#include <thread>

#include "integration/engine.hpp"

namespace zeromerge::test {
namespace {

using Contexts = EngineTest;

// A drafter beside its target, say, whose keys are rotated in another way.
TEST_F(Contexts, EachHasItsOwnRotations) {
  engine.policy("zeromerge:budget=40,merge=drop,replay=50%,refit=64");
  const auto prompt = engine.text(0, 200);
  const auto rest = engine.text(200, 6);
  const Rows expected = run(Options{}, prompt, rest);
  Context context{Options{}};
  Options turned;
  turned.rope_base = 5000.0f;
  Context other(turned);
  other.feed(engine.text(100, 50));
  context.feed(prompt);
  other.feed_each(engine.text(150, 2));
  context.feed_each(rest);
  EXPECT_EQ(expected, context.take());
}

TEST_F(Contexts, OnThreadsOfTheirOwnGiveWhatTheyGiveAloneWhileStatisticsAreRead) {
  engine.policy("zeromerge:budget=40");
  const auto work = [&](std::size_t first) {
    return run(Options{}, engine.text(first, 100), engine.text(first + 100, 6));
  };
  const Rows one = work(0), two = work(200);
  std::atomic<bool> done{false};
  std::thread reader([&] {
    while (!done) {
      (void)engine.statistics();
      EXPECT_STREQ(engine.last_error(), "");
      engine.get_heads([](void*, const zeromerge_head*) {}, nullptr);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  });
  Rows got;
  std::thread beside([&] { got = work(0); });
  EXPECT_EQ(two, work(200));
  beside.join();
  done = true;
  reader.join();
  EXPECT_EQ(one, got);
}

TEST_F(Contexts, AnErrorIsToldToTheThreadWhoseCallFailed) {
  engine.policy("kvzip:budget=40,tail=8,least=8");
  Context context{Options{}};
  context.feed(engine.text(0, 100));
  {
    const Quiet quiet;
    EXPECT_NE(context.try_feed({Piece{0, engine.text(100, 1)}}), 0);
  }
  EXPECT_STRNE(engine.last_error(), "");
  std::thread([&] { EXPECT_STREQ(engine.last_error(), ""); }).join();
}

}  // namespace
}  // namespace zeromerge::test
