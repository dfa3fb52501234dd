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
    // Of each tensor the first page, which it shares, and those of the newest and of the next rows stay.
    const std::size_t tensors = 2 * static_cast<std::size_t>(llama_model_n_layer(engine.model()));
    EXPECT_LE(s.engine_bytes, tensors * 4 * page());
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
  EXPECT_LE(engine.statistics().engine_bytes, 2 * tensors * 4 * page());
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
    EXPECT_LE(engine.statistics().engine_bytes, tensors * 8 * page());
  }
  EXPECT_EQ(engine.statistics().refusals, 0u);
}

// llama-server saves conversations that are idle, clears their slots, and restores them when they go on. What
// it saves is zeros; the caches know the rest.
TEST_F(Reclaim, SequencesThatWereSavedAndRestoredGoOn) {
  engine.policy("zeromerge:budget=48");
  Options options = large();
  options.sequences = 2;
  options.unified = true;
  const auto expected = [&](std::size_t first) {
    return run(large(), engine.text(first, 120), engine.text(first + 120, 12));
  };
  const Rows one = expected(0), two = expected(150);
  engine.reset_statistics();
  Context context(options);
  std::vector<std::uint8_t> states[2];
  Rows got[2];
  const auto take = [&](std::size_t s, llama_seq_id from) {
    for (Row& row : context.take(from)) got[s].push_back(std::move(row));
  };
  for (const std::size_t s : {0u, 1u}) {
    context.feed(engine.text(150 * s, 120), 0);
    context.feed_each(engine.text(150 * s + 120, 4), 0);
    take(s, 0);
    states[s] = context.save();
    context.roll_back(124);
  }
  // In turns, each in the other's cells or elsewhere.
  for (const std::size_t s : {0u, 1u, 0u, 1u}) {
    const std::size_t done = got[s].size() - 1;
    context.restore(states[s]);
    context.feed_each(engine.text(150 * s + 120 + done, 4), 0);
    take(s, 0);
    states[s] = context.save();
    context.roll_back(120 + done + 4);
    context.feed(engine.text(40, 30 + done), 1);
    llama_memory_seq_rm(context.memory(), 1, -1, -1);
    context.set_next(1, 0);
  }
  EXPECT_EQ(engine.statistics().refusals, 0u);
  EXPECT_EQ(engine.statistics().rebuilds, 0u);
  EXPECT_EQ(one, got[0]);
  EXPECT_EQ(two, got[1]);
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
