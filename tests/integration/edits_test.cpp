// The past changes: cleared, rolled back, cut, restored.
#include "integration/engine.hpp"

namespace zeromerge::test {
namespace {

class Edits : public EngineTest {
 protected:
  std::size_t layers() const { return static_cast<std::size_t>(llama_model_n_layer(engine.model())); }

  // What follows in every test: a few tokens at once, then some one by one.
  static Rows go_on(Context& context, const std::vector<llama_token>& tokens) {
    context.take();
    context.feed({tokens.begin(), tokens.begin() + 4});
    context.feed_each({tokens.begin() + 4, tokens.end()});
    return context.take();
  }
};

TEST_F(Edits, AClearedContextIsAsGoodAsNew) {
  for (const char* policy : {"full", "zeromerge:budget=32"}) {
    SCOPED_TRACE(policy);
    engine.policy(policy);
    const auto prompt = engine.text(120, 70);
    const auto rest = engine.text(190, 4);
    const Rows expected = run(Options{}, prompt, rest);
    Context context{Options{}};
    for (const int how : {0, 1, 2}) {
      context.feed(engine.text(0, 90));
      context.feed_each(engine.text(90, 3));
      if (how < 2) {
        context.clear(how == 0);
      } else {
        context.roll_back(93);
      }
      context.take();
      context.feed(prompt);
      context.feed_each(rest);
      EXPECT_EQ(expected, context.take()) << "way " << how;
      context.clear();
    }
    EXPECT_EQ(engine.statistics().stateless_calls, 0u);
    EXPECT_EQ(engine.statistics().rebuilds, 0u);
  }
}

// Without compression the cache goes back by itself, in the prompt and after it.
TEST_F(Edits, ARollbackForgetsTheEnd) {
  const auto prompt = engine.text(0, 90);
  const auto other = engine.text(150, 8);
  for (const std::size_t decoded : {0u, 5u}) {
    for (const std::size_t back : {1u, 30u}) {
      SCOPED_TRACE(std::to_string(decoded) + " decoded, back by " + std::to_string(back));
      Context context{Options{}};
      Context reference(plain());
      for (Context* c : {&context, &reference}) {
        c->feed(prompt);
        c->feed_each(engine.text(90, decoded));
        c->roll_back(back);
      }
      expect_equal(go_on(reference, other), go_on(context, other));
      EXPECT_EQ(engine.statistics().entries, (90 + decoded - back + 8) * engine.heads());
    }
  }
  EXPECT_EQ(engine.statistics().rebuilds, 0u);
  EXPECT_EQ(engine.statistics().stateless_calls, 0u);
}

// Speculative decoding: several tokens at once, then back to those that hold.
TEST_F(Edits, RollbacksMayFollowOneAnother) {
  Context context{Options{}};
  Context reference(plain());
  for (Context* c : {&context, &reference}) {
    c->feed(engine.text(0, 60));
    for (std::size_t i = 0; i < 4; ++i) {
      c->feed(engine.text(100 + 7 * i, 6));
      c->roll_back(i + 1);
    }
    c->feed_each(engine.text(200, 3));
  }
  expect_equal(reference.take(), context.take());
  EXPECT_EQ(engine.statistics().rebuilds, 0u);
  EXPECT_EQ(engine.statistics().stateless_calls, 0u);
}

// Further back than entries can be taken back, llama.cpp still has every cell, so what is kept is chosen
// anew.
TEST_F(Edits, ADeepRollbackAfterCompressionReadsThePastAgain) {
  engine.policy("zeromerge:budget=60,rollback=4");
  const auto other = engine.text(200, 12);
  Context context{Options{}};
  Context reference(plain());
  for (Context* c : {&context, &reference}) {
    c->feed(engine.text(0, 120));
    c->feed_each(engine.text(120, 5));
    c->roll_back(60);
  }
  EXPECT_EQ(engine.statistics().entries, 60 * engine.heads());
  const Rows expected = go_on(reference, other);
  // Everything is visible again until enough queries have been seen to choose.
  expect_equal(expected, go_on(context, other));
  zeromerge_statistics s = engine.statistics();
  EXPECT_EQ(s.rebuilds, layers());
  EXPECT_EQ(s.stateless_calls, 0u);
  EXPECT_EQ(s.entries, (65 + 12) * engine.heads());
  EXPECT_EQ(s.tokens, (65 + 12) * layers());
  for (Context* c : {&context, &reference}) {
    c->feed(engine.text(212, 70));
    c->feed_each(engine.text(282, 8));
  }
  expect_close(reference.take(), context.take(), 1.0);
  s = engine.statistics();
  EXPECT_EQ(s.rebuilds, layers());
  EXPECT_EQ(s.entries, 60 * engine.heads());
}

TEST_F(Edits, AShiftOfTheContextEqualsPlain) {
  const auto rest = engine.text(200, 12);
  Context context{Options{}};
  Context reference(plain());
  for (Context* c : {&context, &reference}) {
    c->feed(engine.text(0, 100));
    c->feed_each(engine.text(100, 3));
    c->cut(20, 40);
  }
  expect_equal(go_on(reference, rest), go_on(context, rest));
  EXPECT_EQ(engine.statistics().rebuilds, layers());
  // Again, now from the first token on; new tokens lie in the hole.
  for (Context* c : {&context, &reference}) c->cut(0, 30);
  expect_equal(go_on(reference, rest), go_on(context, rest));
  EXPECT_EQ(engine.statistics().rebuilds, 2 * layers());
  EXPECT_EQ(engine.statistics().stateless_calls, 0u);
}

// Only positions change; which cells are seen does not.
TEST_F(Edits, AShiftOfAllPositionsIsNoticed) {
  const auto rest = engine.text(200, 8);
  Context context{Options{}};
  Context reference(plain());
  for (Context* c : {&context, &reference}) {
    c->feed(engine.text(0, 60));
    c->feed_each(engine.text(60, 2));
    // The second half moves away from the first: relative positions change.
    llama_memory_seq_add(c->memory(), 0, 30, -1, 25);
    c->set_next(0, 62 + 25);
  }
  expect_equal(go_on(reference, rest), go_on(context, rest));
  EXPECT_EQ(engine.statistics().rebuilds, layers());
}

TEST_F(Edits, AStateGoesToAFreshContext) {
  const auto rest = engine.text(80, 8);
  Context source{Options{}};
  Context reference(plain());
  for (Context* c : {&source, &reference}) {
    c->feed(engine.text(0, 78));
    c->feed_each(engine.text(78, 2));
  }
  Context context{Options{}};
  context.restore(source.save());
  expect_equal(go_on(reference, rest), go_on(context, rest));
  EXPECT_EQ(engine.statistics().rebuilds, layers());
  EXPECT_EQ(engine.statistics().stateless_calls, 0u);
}

// What was there has as many tokens, and the same first and last one: in the first layer their keys are the
// same.
TEST_F(Edits, AStateReplacesAnotherOfTheSameLength) {
  auto one = engine.text(0, 60);
  auto other = engine.text(100, 60);
  other.front() = one.front();
  other.back() = one.back();
  const auto rest = engine.text(200, 8);
  Context source{Options{}};
  Context reference(plain());
  for (Context* c : {&source, &reference}) c->feed(one);
  Context context{Options{}};
  context.feed(other);
  context.restore(source.save());
  expect_equal(go_on(reference, rest), go_on(context, rest));
  EXPECT_EQ(engine.statistics().rebuilds, layers());
}

// Between two turns, say: the longer past was there before.
TEST_F(Edits, AStateReplacesAShorterPast) {
  const auto rest = engine.text(200, 8);
  Context source{Options{}};
  Context reference(plain());
  for (Context* c : {&source, &reference}) c->feed(engine.text(0, 80));
  const auto state = source.save();
  source.clear();
  source.feed(engine.text(120, 20));
  source.restore(state);
  expect_equal(go_on(reference, rest), go_on(source, rest));
  EXPECT_EQ(engine.statistics().rebuilds, layers());
  EXPECT_EQ(engine.statistics().stateless_calls, 0u);
}

// Which cells are seen looks like a rollback then.
TEST_F(Edits, AStateReplacesALongerPast) {
  const auto rest = engine.text(200, 8);
  auto other = engine.text(120, 80);
  other.front() = engine.text(0, 1).front();
  Context source{Options{}};
  Context reference(plain());
  for (Context* c : {&source, &reference}) c->feed(engine.text(0, 50));
  Context context{Options{}};
  context.feed(other);
  context.restore(source.save());
  expect_equal(go_on(reference, rest), go_on(context, rest));
  EXPECT_EQ(engine.statistics().rebuilds, layers());
}

}  // namespace
}  // namespace zeromerge::test
