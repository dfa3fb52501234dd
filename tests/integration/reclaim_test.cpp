// Reclaiming: the pages of llama.cpp's cells go back to the system once the caches hold their content.
#include "integration/engine.hpp"

namespace zeromerge::test {
namespace {

class Reclaim : public EngineTest {
 protected:
  void SetUp() override {
    EngineTest::SetUp();
    engine.set_reclaim(true);
  }
  void TearDown() override { engine.set_reclaim(false); }

  static Options large() {
    Options options;
    options.cells = 1024;
    options.ubatch = 64;
    return options;
  }
  std::string last_error() const { return engine.last_error(); }
  static std::size_t page() { return static_cast<std::size_t>(sysconf(_SC_PAGESIZE)); }
  // Bytes of a tensor's pages under the first tokens of a sequence, which stay.
  std::size_t beginning() const { return (32 * engine.heads() * 64 * 2 + page() - 1) / page() * page(); }
};

TEST_F(Reclaim, LeavesLittleOfTheEnginesCellsAndTheSameResults) {
  for (const char* policy : {"full", "zeromerge:budget=48"}) {
    SCOPED_TRACE(policy);
    engine.policy(policy);
    const auto prompt = engine.text(0, 250);
    const auto rest = engine.text(250, 12);
    engine.set_reclaim(false);
    Rows expected;
    std::size_t before = 0;
    {
      Context context(large());
      context.feed(prompt);
      context.feed_each(rest);
      before = engine.statistics().engine_bytes;
      expected = context.take();
    }
    engine.set_reclaim(true);
    Context context(large());
    context.feed(prompt);
    context.feed_each(rest);
    EXPECT_EQ(expected, context.take());
    const zeromerge_statistics s = engine.statistics();
    EXPECT_EQ(s.refusals, 0u);
    // Of each tensor the first page, which it shares, and those of the first, the newest and the next rows
    // stay.
    const std::size_t tensors = 2 * static_cast<std::size_t>(llama_model_n_layer(engine.model()));
    EXPECT_LE(s.engine_bytes, tensors * (4 * page() + beginning()));
    EXPECT_GE(before, 1024 * engine.heads() * 64 * 2 * 2);
    EXPECT_LT(s.engine_bytes, before / 10);
  }
}

TEST_F(Reclaim, StreamsGiveBackTheirOwn) {
  Options options = large();
  options.sequences = 2;
  Context context(options);
  context.feed_batch({Piece{0, engine.text(0, 60)}, Piece{1, engine.text(100, 90)}});
  for (std::size_t i = 0; i < 3; ++i)
    context.feed_batch({Piece{0, engine.text(60 + i, 1)}, Piece{1, engine.text(190 + i, 1)}});
  expect_equal(run(plain(), engine.text(0, 60), engine.text(60, 3)), context.take(0));
  expect_equal(run(plain(), engine.text(100, 90), engine.text(190, 3)), context.take(1));
  const std::size_t tensors = 2 * static_cast<std::size_t>(llama_model_n_layer(engine.model()));
  EXPECT_LE(engine.statistics().engine_bytes, 2 * tensors * (4 * page() + beginning()));
}

TEST_F(Reclaim, ARollbackOfAnUncompressedPromptNeedsNoCells) {
  Context context(large());
  Context reference(plain(large()));
  for (Context* c : {&context, &reference}) {
    c->feed(engine.text(0, 120));
    c->roll_back(50);
    c->feed(engine.text(200, 20));
    c->feed_each(engine.text(220, 4));
    c->roll_back(9);
    c->feed_each(engine.text(100, 4));
  }
  expect_equal(reference.take(), context.take());
  EXPECT_EQ(engine.statistics().rebuilds, 0u);
  EXPECT_EQ(engine.statistics().refusals, 0u);
}

TEST_F(Reclaim, ARollbackAfterCompressionIsRefusedWithTheReason) {
  engine.policy("zeromerge:budget=48,rollback=4");
  Context context(large());
  context.feed(engine.text(0, 120));
  context.feed_each(engine.text(120, 4));
  context.take();
  context.roll_back(60);
  const Quiet quiet;
  EXPECT_NE(context.try_feed({Piece{0, engine.text(200, 1)}}), 0);
  EXPECT_EQ(engine.statistics().refusals, 1u);
  EXPECT_NE(last_error().find("given back"), std::string::npos) << last_error();
  EXPECT_NE(last_error().find("ZEROMERGE_RECLAIM"), std::string::npos) << last_error();
  // Nor is it answered later, by other means.
  EXPECT_NE(context.try_feed({Piece{0, engine.text(200, 5)}}), 0);
  EXPECT_EQ(engine.statistics().refusals, 2u);
  EXPECT_EQ(engine.statistics().stateless_calls, 0u);
  // Anew, it works.
  context.clear();
  const auto prompt = engine.text(50, 80);
  const auto rest = engine.text(130, 4);
  context.feed(prompt);
  context.feed_each(rest);
  EXPECT_EQ(last_error(), "");
  EXPECT_EQ(run(large(), prompt, rest), context.take());
}

TEST_F(Reclaim, AStateWithContentIsTakenIntoCellsThatWereGivenBack) {
  engine.set_reclaim(false);
  std::vector<std::uint8_t> state;
  Rows expected;
  {
    Context source(large());
    Context reference(plain(large()));
    for (Context* c : {&source, &reference}) c->feed(engine.text(0, 100));
    state = source.save();
    reference.take();
    reference.feed_each(engine.text(100, 3));
    expected = reference.take();
  }
  engine.set_reclaim(true);
  for (const std::size_t before : {90u, 160u}) {
    SCOPED_TRACE(std::to_string(before) + " tokens before");
    Context context(large());
    auto other = engine.text(150, before);
    other.front() = engine.text(0, 1).front();
    context.feed(other);
    context.take();
    context.restore(state);
    context.feed_each(engine.text(100, 3));
    expect_equal(expected, context.take());
    const std::size_t tensors = 2 * static_cast<std::size_t>(llama_model_n_layer(engine.model()));
    EXPECT_LE(engine.statistics().engine_bytes, tensors * (8 * page() + 2 * beginning()));
  }
  EXPECT_EQ(engine.statistics().refusals, 0u);
}

// What was saved after the cells had been given back is zeros.
TEST_F(Reclaim, AStateWithoutContentIsRefused) {
  Context source(large());
  source.feed(engine.text(0, 100));
  const auto state = source.save();
  engine.set_reclaim(false);
  Context context(large());
  context.restore(state);
  const Quiet quiet;
  EXPECT_NE(context.try_feed({Piece{0, engine.text(100, 1)}}), 0);
  EXPECT_EQ(engine.statistics().refusals, 1u);
}

}  // namespace
}  // namespace zeromerge::test
