// What a sequence held goes with it.
#include "integration/engine.hpp"

namespace zeromerge::test {
namespace {

class Freed : public EngineTest {
 protected:
  static Options large(unsigned sequences = 1, bool unified = false) {
    Options options;
    options.cells = 1024;
    options.sequences = sequences;
    options.unified = unified;
    return options;
  }
  std::uint64_t held() const { return engine.statistics().kv_bytes; }
};

TEST_F(Freed, AClearedSequenceByACall) {
  for (const bool data : {true, false}) {
    Context context(large());
    context.feed(engine.text(0, 400));
    context.feed(engine.text(400, 400));
    EXPECT_GT(held(), 800 * engine.heads() * 64 * 2 * 2);
    context.clear(data);
    ASSERT_TRUE(engine.trim(data ? 1000 : 0));
    EXPECT_EQ(engine.statistics().caches, 0u);
    EXPECT_EQ(held(), 0u);
    // What comes next starts from nothing.
    context.take();
    context.feed(engine.text(100, 50));
    context.feed_each(engine.text(150, 2));
    expect_equal(run(plain(), engine.text(100, 50), engine.text(150, 2)), context.take());
  }
}

TEST_F(Freed, AClearedSequenceByTheNextGraph) {
  for (const int how : {0, 1, 2}) {
    SCOPED_TRACE(how);
    Context context(large());
    context.feed(engine.text(0, 800));
    const std::uint64_t before = held();
    if (how < 2)
      context.clear(how == 0);
    else
      context.roll_back(800);
    context.feed(engine.text(100, 20));
    EXPECT_EQ(engine.statistics().tokens,
              20 * static_cast<std::uint64_t>(llama_model_n_layer(engine.model())));
    EXPECT_LT(held(), before / 4);
  }
}

TEST_F(Freed, ASequenceOfSeveralByTheNextGraphOfAnother) {
  Context context(large(2, true));
  context.feed(engine.text(0, 400), 0);
  context.feed(engine.text(100, 20), 1);
  const std::uint64_t both = held();
  llama_memory_seq_rm(context.memory(), 0, -1, -1);
  context.feed_each(engine.text(120, 1), 1);
  EXPECT_LT(held(), both / 4);
  EXPECT_EQ(engine.statistics().caches, static_cast<std::uint64_t>(llama_model_n_layer(engine.model())));
  EXPECT_EQ(engine.statistics().rebuilds, 0u);
}

// One that is dropped by mistake is read again.
TEST_F(Freed, ASequenceThatGoesOnAfterAllIsReadAgain) {
  Context context(large());
  context.feed(engine.text(0, 60));
  ASSERT_TRUE(engine.trim(0));
  context.feed_each(engine.text(60, 3));
  expect_equal(run(plain(), engine.text(0, 60), engine.text(60, 3)), context.take());
  EXPECT_EQ(engine.statistics().rebuilds, static_cast<std::uint64_t>(llama_model_n_layer(engine.model())));
}

}  // namespace
}  // namespace zeromerge::test
