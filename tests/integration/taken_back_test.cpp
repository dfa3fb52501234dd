// The newest tokens are taken back: rejected drafts, an aborted graph, a regenerated answer, a restored
// state. Nothing is read again, and what follows is what would have followed.
#include "integration/engine.hpp"

namespace zeromerge::test {
namespace {

class TakenBack : public EngineTest {
 protected:
  void TearDown() override { engine.set_reclaim(false); }

  std::size_t layers() const { return static_cast<std::size_t>(llama_model_n_layer(engine.model())); }
  static Options large() {
    Options options;
    options.cells = 1024;
    return options;
  }
  void expect_untroubled() const {
    EXPECT_EQ(engine.statistics().rebuilds, 0u);
    EXPECT_EQ(engine.statistics().stateless_calls, 0u);
    EXPECT_EQ(engine.statistics().refusals, 0u);
  }
};

TEST_F(TakenBack, RejectedDraftsLeaveNoTrace) {
  engine.policy("zeromerge:budget=60");
  const auto tokens = engine.text(605, 16);
  const Rows expected = run(large(), engine.text(0, 600), engine.text(600, 5 + 16));
  for (const bool reclaim : {false, true}) {
    SCOPED_TRACE(reclaim ? "with reclaiming" : "");
    engine.set_reclaim(reclaim);
    engine.reset_statistics();
    Context context(large());
    context.feed(engine.text(0, 600));
    context.feed_each(engine.text(600, 5));
    Rows got = context.take();
    for (std::size_t round = 0; round < 8; ++round) {
      std::vector<llama_token> drafts(tokens.begin() + static_cast<std::ptrdiff_t>(2 * round),
                                      tokens.begin() + static_cast<std::ptrdiff_t>(2 * round + 2));
      for (const llama_token wrong : engine.text(30 * round, 3)) drafts.push_back(wrong);
      context.feed_batch({Piece{0, drafts}}, true);
      context.roll_back(3);
      const Rows rows = context.take();
      got.insert(got.end(), rows.begin(), rows.begin() + 2);
    }
    const Difference d = difference(expected, got);
    EXPECT_LT(d.mean_kl, 1e-3) << describe(d);  // rounding may turn a close decision
    expect_untroubled();
    EXPECT_LE(engine.statistics().entries, (60 + 8) * engine.heads());
    EXPECT_GE(engine.statistics().entries, 60 * engine.heads());
  }
}

// A prompt's last token is fed again to have its logits, as servers do where they have all of it.
TEST_F(TakenBack, ARegeneratedAnswerIsTheFirstOne) {
  engine.policy("zeromerge:budget=60");
  for (const bool reclaim : {false, true}) {
    SCOPED_TRACE(reclaim ? "with reclaiming" : "");
    engine.set_reclaim(reclaim);
    engine.reset_statistics();
    Context context(large());
    context.feed(engine.text(0, 300));
    std::vector<Rows> answers;
    for (int i = 0; i < 3; ++i) {
      context.take();
      context.feed_each(engine.text(300, 30));
      answers.push_back(context.take());
      context.roll_back(30);
    }
    // The queries of the answers before have left a little in the scores.
    EXPECT_LT(difference(answers[0], answers[1]).mean_kl, 1e-2);
    EXPECT_LT(difference(answers[0], answers[2]).mean_kl, 1e-2);
    context.roll_back(1);
    context.feed(engine.text(299, 1));
    context.feed_each(engine.text(300, 10));
    expect_untroubled();
  }
}

TEST_F(TakenBack, AnAbortedGraphIsAsIfItHadNotBeen) {
  engine.policy("zeromerge:budget=60");
  const Rows expected = run(large(), engine.text(0, 300), engine.text(300, 10));
  for (const bool reclaim : {false, true}) {
    SCOPED_TRACE(reclaim ? "with reclaiming" : "");
    engine.set_reclaim(reclaim);
    engine.reset_statistics();
    Context context(large());
    context.feed(engine.text(0, 300));
    context.feed_each(engine.text(300, 4));
    int calls = 0;
    llama_set_abort_callback(
        context.raw(), [](void* count) { return ++*static_cast<int*>(count) == 40; }, &calls);
    {
      const Quiet quiet;
      EXPECT_EQ(context.try_feed({Piece{0, engine.text(304, 1)}}), 2);
    }
    llama_set_abort_callback(context.raw(), nullptr, nullptr);
    context.feed_each(engine.text(304, 6));
    const Difference d = difference(expected, context.take());
    EXPECT_LT(d.mean_kl, 1e-4) << describe(d);
    expect_untroubled();
  }
}

// The same content in the same cells is what the cache holds.
TEST_F(TakenBack, AStateThatIsRestoredWhereItWasGivesTheSameAnswers) {
  engine.policy("zeromerge:budget=60");
  Context context(large());
  context.feed(engine.text(0, 300));
  const auto state = context.save();
  std::vector<Rows> answers;
  for (int i = 0; i < 3; ++i) {
    context.clear(false);
    context.restore(state);
    context.take();
    context.feed_each(engine.text(300, 40));
    answers.push_back(context.take());
  }
  EXPECT_LT(difference(answers[0], answers[1]).mean_kl, 1e-2);
  EXPECT_LT(difference(answers[0], answers[2]).mean_kl, 1e-2);
  expect_untroubled();
}

// However long the answer that was given before.
TEST_F(TakenBack, AStateThatIsRestoredElsewhereGivesTheSameAnswersEachTime) {
  engine.policy("zeromerge:budget=60");
  std::vector<std::uint8_t> state;
  {
    Context source(large());
    source.feed(engine.text(0, 200));
    source.feed_each(engine.text(200, 5));
    state = source.save();
  }
  Context context(large());
  std::vector<Rows> answers;
  for (const std::size_t more : {70u, 20u, 90u}) {
    context.clear(false);
    context.restore(state);
    context.take();
    context.feed_each(engine.text(205, 12));
    answers.push_back(context.take());
    context.feed_each(engine.text(217, more));
  }
  EXPECT_EQ(answers[0], answers[1]);
  EXPECT_EQ(answers[0], answers[2]);
  EXPECT_EQ(engine.statistics().rebuilds, 3 * layers());
}

// llama-server saves conversations that are idle, clears their slots, and restores them when they go on. With
// reclaiming what it saves is zeros; the caches know the rest.
TEST_F(TakenBack, SequencesThatWereSavedAndRestoredReadNothingAgain) {
  engine.policy("zeromerge:budget=48");
  Options options = large();
  options.sequences = 2;
  options.unified = true;
  const auto expected = [&](std::size_t first) {
    return run(large(), engine.text(first, 400), engine.text(first + 400, 12));
  };
  const Rows one = expected(0), two = expected(150);
  for (const bool reclaim : {false, true}) {
    SCOPED_TRACE(reclaim ? "with reclaiming" : "");
    engine.set_reclaim(reclaim);
    engine.reset_statistics();
    Context context(options);
    for (const llama_seq_id s : {0, 1}) context.feed(engine.text(0, 10), s);
    context.clear();
    context.take(0);
    std::vector<std::uint8_t> states[2];
    Rows got[2];
    const auto take = [&](std::size_t s, llama_seq_id from) {
      for (Row& row : context.take(from)) got[s].push_back(std::move(row));
    };
    for (const std::size_t s : {0u, 1u}) {
      context.feed(engine.text(150 * s, 400), 0);
      context.feed_each(engine.text(150 * s + 400, 4), 0);
      take(s, 0);
      states[s] = context.save();
      context.roll_back(404);
    }
    // In turns, each in the other's cells or elsewhere.
    for (const std::size_t s : {0u, 1u, 0u, 1u}) {
      const std::size_t done = got[s].size() - 1;
      context.restore(states[s]);
      context.feed_each(engine.text(150 * s + 400 + done, 4), 0);
      take(s, 0);
      states[s] = context.save();
      context.roll_back(400 + done + 4);
      context.feed(engine.text(40, 30 + done), 1);
      llama_memory_seq_rm(context.memory(), 1, -1, -1);
      context.set_next(1, 0);
    }
    expect_untroubled();
    EXPECT_TRUE(one == got[0]) << describe(difference(one, got[0]));
    EXPECT_TRUE(two == got[1]) << describe(difference(two, got[1]));
  }
}

}  // namespace
}  // namespace zeromerge::test
