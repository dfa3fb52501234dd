// Two contexts on two threads, and statistics read from a third: built with the plug-in for the thread
// sanitizer, which ends the program at the first race. Each context computes with one thread, whose own
// synchronisation it cannot see.
#include <atomic>
#include <thread>

#include "integration/engine.hpp"

namespace zeromerge::test {
namespace {

// Two sequences in one stream: prompts together, tokens in turns, one taken back, one cleared and begun
// again.
Rows conversation(std::size_t first) {
  Options options;
  options.sequences = 2;
  options.unified = true;
  Context context(options);
  const Engine& engine = Engine::get();
  for (int round = 0; round < 2; ++round) {
    context.feed_batch({{0, engine.text(first, 70)}, {1, engine.text(first + 70, 50)}});
    for (std::size_t i = 0; i < 6; ++i)
      context.feed_batch({{0, engine.text(first + 70 + i, 1)}, {1, engine.text(first + 120 + i, 1)}});
    context.roll_back(3, 1);
    context.feed(engine.text(first + 130, 4), 1);
    if (round == 0) context.clear();
  }
  Rows rows = context.take(0);
  for (Row& row : context.take(1)) rows.push_back(std::move(row));
  return rows;
}

TEST(TwoContexts, AnswerAsOneDoesWhileStatisticsAreRead) {
  Engine& engine = Engine::get();
  for (const char* policy : {"full", "zeromerge:budget=25%", "best:budget=25%"}) {
    SCOPED_TRACE(policy);
    engine.policy(policy);
    const std::array<Rows, 2> expected{conversation(0), conversation(200)};

    std::array<Rows, 2> got;
    std::atomic<bool> done = false;
    std::thread reader([&] {
      std::uint64_t entries = 0;
      const auto add = [](void* sum, const zeromerge_head* head) {
        *static_cast<std::uint64_t*>(sum) += head->entries;
      };
      while (!done) {
        entries += engine.statistics().entries;
        engine.get_heads(add, &entries);
        entries += engine.last_error()[0] != '\0';
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
    });
    std::thread other([&] { got[1] = conversation(200); });
    got[0] = conversation(0);
    other.join();
    done = true;
    reader.join();

    EXPECT_EQ(got[0], expected[0]);
    EXPECT_EQ(got[1], expected[1]);
  }
}

}  // namespace
}  // namespace zeromerge::test
