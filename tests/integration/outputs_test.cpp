// A prompt is told by the rows whose outputs are asked for, in whatever pieces it comes.
#include "integration/engine.hpp"

namespace zeromerge::test {
namespace {

class Outputs : public EngineTest {
 protected:
  void SetUp() override {
    EngineTest::SetUp();
    engine.policy("zeromerge:budget=32");
  }
};

// llama.cpp begins a batch of two streams with what is equally long in both: one token of each.
TEST_F(Outputs, APromptBesideADecodingSequenceIsExact) {
  for (const bool unified : {false, true}) {
    SCOPED_TRACE(unified ? "one stream" : "two streams");
    engine.reset_statistics();
    Options options;
    options.cells = 1024;
    options.sequences = 2;
    options.unified = unified;
    Context context(options);
    Context reference(plain(options));
    for (Context* c : {&context, &reference}) {
      c->feed(engine.text(0, 100), 0);
      c->feed_each(engine.text(100, 1), 0);
      c->feed_batch({Piece{0, engine.text(101, 1)}, Piece{1, engine.text(300, 200), false}});
      c->feed_batch({Piece{0, engine.text(102, 1)}, Piece{1, engine.text(500, 200)}});
    }
    expect_equal(reference.take(1), context.take(1));
    context.feed_each(engine.text(700, 2), 1);
    EXPECT_EQ(engine.statistics().entries, 2 * 32 * engine.heads());
    EXPECT_EQ(engine.statistics().stateless_calls, 0u);
    EXPECT_EQ(engine.statistics().rebuilds, 0u);
  }
}

TEST_F(Outputs, APromptWhoseLastPieceIsOneTokenIsExact) {
  Options options;
  options.ubatch = 64;
  expect_equal(run(plain(options), engine.text(0, 65), {}), run(options, engine.text(0, 65), {}));
  options.ubatch = 1;
  expect_equal(run(plain(options), engine.text(0, 20), {}), run(options, engine.text(0, 20), {}));
}

// Behind the compressed past the tokens of a turn see each other exactly, in whatever pieces they come.
TEST_F(Outputs, ATurnDoesNotDependOnItsPieces) {
  std::vector<Rows> rows;
  for (const unsigned ubatch : {512u, 16u, 1u}) {
    Options options;
    options.ubatch = ubatch;
    Context context(options);
    context.feed(engine.text(0, 150));
    ASSERT_TRUE(engine.finish_prompt());
    context.feed(engine.text(150, 33));
    context.take();
    context.feed(engine.text(183, 1));
    rows.push_back(context.take());
    EXPECT_EQ(engine.statistics().entries, 32 * engine.heads());
  }
  EXPECT_LT(difference(rows[0], rows[1]).mean_kl, 5e-2);
  EXPECT_LT(difference(rows[0], rows[2]).mean_kl, 5e-2);
}

// Tokens that are checked together are decoded, as those that come one by one.
TEST_F(Outputs, DraftsDoNotOpenThePromptAgain) {
  const Rows expected = run(Options{}, engine.text(0, 150), engine.text(150, 9));
  Context context{Options{}};
  context.feed(engine.text(0, 150));
  context.feed_batch({Piece{0, engine.text(150, 4)}}, true);
  EXPECT_EQ(engine.statistics().entries, 32 * engine.heads());
  context.feed_batch({Piece{0, engine.text(154, 5)}}, true);
  EXPECT_EQ(engine.statistics().entries, 32 * engine.heads());
  const Difference d = difference(expected, context.take());
  EXPECT_LT(d.mean_kl, 1e-3) << describe(d);
}

}  // namespace
}  // namespace zeromerge::test
