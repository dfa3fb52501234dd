// Several sequences: in streams of their own, or together in one.
#include "integration/engine.hpp"

namespace zeromerge::test {
namespace {

class Sequences : public EngineTest {
 protected:
  struct Part {
    std::vector<llama_token> prompt;
    std::vector<llama_token> rest;
  };
  std::vector<Part> parts(std::size_t rest) const {
    std::vector<Part> parts;
    for (const auto& [first, count] : {std::pair<std::size_t, std::size_t>{0, 50}, {90, 83}, {200, 34}})
      parts.push_back({engine.text(first, count), engine.text(first + count, rest)});
    return parts;
  }

  // All prompts in one batch, then one token of each per batch.
  static void feed_together(Context& context, const std::vector<Part>& parts) {
    std::vector<Piece> pieces;
    for (std::size_t s = 0; s < parts.size(); ++s)
      pieces.push_back({static_cast<llama_seq_id>(s), parts[s].prompt});
    context.feed_batch(pieces);
    for (std::size_t i = 0; i < parts[0].rest.size(); ++i) {
      for (std::size_t s = 0; s < parts.size(); ++s) pieces[s].tokens = {parts[s].rest[i]};
      context.feed_batch(pieces);
    }
  }

  Options streams() const {
    Options options;
    options.sequences = 3;
    return options;
  }
};

TEST_F(Sequences, InStreamsEqualThoseRunAlone) {
  const auto all = parts(6);
  Context context(streams());
  feed_together(context, all);
  for (std::size_t s = 0; s < all.size(); ++s)
    expect_equal(run(plain(), all[s].prompt, all[s].rest), context.take(static_cast<llama_seq_id>(s)));
  EXPECT_EQ(engine.statistics().stateless_calls, 0u);
  EXPECT_EQ(engine.statistics().rebuilds, 0u);
  EXPECT_EQ(engine.statistics().entries, (50 + 83 + 34 + 3 * 6) * engine.heads());
}

// Entries go by scores, which the tokens of other streams must not touch.
TEST_F(Sequences, InStreamsAreCompressedAsThoseRunAlone) {
  engine.policy("zeromerge:budget=32");
  const auto all = parts(6);
  Context context(streams());
  feed_together(context, all);
  EXPECT_EQ(engine.statistics().entries, 3 * 32 * engine.heads());
  for (std::size_t s = 0; s < all.size(); ++s) {
    const Rows alone = run(Options{}, all[s].prompt, all[s].rest);
    const Difference d = difference(alone, context.take(static_cast<llama_seq_id>(s)));
    EXPECT_LT(d.mean_kl, 1e-3) << describe(d);  // rounding may turn a close decision
  }
}

// One sequence decodes while another's prompt arrives.
TEST_F(Sequences, MayBeInDifferentPhases) {
  const auto all = parts(8);
  Context context(streams());
  context.feed(all[0].prompt, 0);
  context.feed_batch({Piece{0, {all[0].rest[0]}}, Piece{1, all[1].prompt}});
  context.feed_batch({Piece{0, {all[0].rest[1]}}, Piece{1, {all[1].rest[0]}}, Piece{2, all[2].prompt}});
  context.feed_batch(
      {Piece{1, {all[1].rest[1], all[1].rest[2]}}, Piece{0, {all[0].rest[2]}}, Piece{2, {all[2].rest[0]}}});
  context.feed_batch({Piece{2, {all[2].rest[1]}}});
  Context reference(plain(streams()));
  reference.feed(all[0].prompt, 0);
  reference.feed_each({all[0].rest[0], all[0].rest[1], all[0].rest[2]}, 0);
  reference.feed(all[1].prompt, 1);
  reference.feed_each({all[1].rest[0]}, 1);
  reference.feed({all[1].rest[1], all[1].rest[2]}, 1);
  reference.feed(all[2].prompt, 2);
  reference.feed_each({all[2].rest[0], all[2].rest[1]}, 2);
  for (llama_seq_id s = 0; s < 3; ++s) expect_equal(reference.take(s), context.take(s));
  EXPECT_EQ(engine.statistics().stateless_calls, 0u);
}

TEST_F(Sequences, OneOfSeveralCanStartAnew) {
  const auto all = parts(3);
  Context context(streams());
  feed_together(context, all);
  for (llama_seq_id s = 0; s < 3; ++s) context.take(s);
  context.roll_back(83 + 3, 1);
  const auto other = engine.text(130, 40);
  context.feed_batch({Piece{1, other}, Piece{0, engine.text(53, 1)}});
  expect_equal(run(plain(), other, {}), context.take(1));
  Rows expected = run(plain(), all[0].prompt, engine.text(50, 4));
  expect_equal({expected.back()}, context.take(0));
  EXPECT_EQ(engine.statistics().stateless_calls, 0u);
}

TEST_F(Sequences, ACopyContinuesOnItsOwn) {
  Options options = streams();
  Context context(options);
  const auto prompt = engine.text(0, 60);
  context.feed(prompt, 0);
  llama_memory_seq_cp(context.memory(), 0, 2, -1, -1);
  context.set_next(2, 60);
  context.feed_each(engine.text(150, 3), 2);
  context.feed_each(engine.text(60, 3), 0);
  Rows expected = run(plain(), prompt, engine.text(60, 3));
  expect_equal(expected, context.take(0));
  expected = run(plain(), prompt, engine.text(150, 3));
  expected.erase(expected.begin());
  expect_equal(expected, context.take(2));
  EXPECT_EQ(engine.statistics().stateless_calls, 0u);
}

// llama-server's default: several slots, one unified cache.
TEST_F(Sequences, InOneStreamEqualThoseRunAlone) {
  Options options = streams();
  options.unified = true;
  const auto all = parts(6);
  Context context(options);
  feed_together(context, all);
  for (std::size_t s = 0; s < all.size(); ++s)
    expect_equal(run(plain(), all[s].prompt, all[s].rest), context.take(static_cast<llama_seq_id>(s)));
  EXPECT_EQ(engine.statistics().stateless_calls, 0u);
  EXPECT_EQ(engine.statistics().rebuilds, 0u);
  EXPECT_EQ(engine.statistics().entries, (50 + 83 + 34 + 3 * 6) * engine.heads());
}

TEST_F(Sequences, InOneStreamAreCompressedAsThoseRunAlone) {
  engine.policy("zeromerge:budget=32");
  Options options = streams();
  options.sequences = 2;
  options.unified = true;
  options.cells = 1024;
  for (const bool reclaim : {false, true}) {
    SCOPED_TRACE(reclaim ? "with reclaiming" : "");
    engine.set_reclaim(reclaim);
    engine.reset_statistics();
    Context context(options);
    std::vector<Rows> expected;
    for (const llama_seq_id s : {0, 1}) context.feed(engine.text(static_cast<std::size_t>(s) * 217, 400), s);
    for (std::size_t i = 0; i < 20; ++i)
      for (const llama_seq_id s : {0, 1})
        context.feed(engine.text(static_cast<std::size_t>(s) * 217 + 400 + i, 1), s);
    EXPECT_EQ(engine.statistics().entries, 2 * 32 * engine.heads());
    EXPECT_EQ(engine.statistics().stateless_calls, 0u);
    EXPECT_EQ(engine.statistics().rebuilds, 0u);
    EXPECT_EQ(engine.statistics().refusals, 0u);
    for (const llama_seq_id s : {0, 1}) {
      const std::size_t first = static_cast<std::size_t>(s) * 217;
      const Difference d =
          difference(run(options, engine.text(first, 400), engine.text(first + 400, 20)), context.take(s));
      EXPECT_LT(d.mean_kl, 1e-3) << describe(d);
    }
  }
  engine.set_reclaim(false);
}

TEST_F(Sequences, InOneStreamMayComeOneAfterTheOther) {
  Options options = streams();
  options.sequences = 2;
  options.unified = true;
  const auto all = parts(4);
  Context context(options);
  context.feed(all[0].prompt, 0);
  context.feed_each({all[0].rest[0], all[0].rest[1]}, 0);
  context.feed(all[1].prompt, 1);
  context.feed_each({all[0].rest[2], all[0].rest[3]}, 0);
  context.feed_each(all[1].rest, 1);
  expect_equal(run(plain(), all[0].prompt, all[0].rest), context.take(0));
  expect_equal(run(plain(), all[1].prompt, all[1].rest), context.take(1));
  EXPECT_EQ(engine.statistics().stateless_calls, 0u);
  EXPECT_EQ(engine.statistics().rebuilds, 0u);
}

// Whoever goes on first must not take the past from the others.
TEST_F(Sequences, ForksOfACompressedOneGoOnInTurns) {
  engine.policy("zeromerge:budget=40");
  Options options = streams();
  options.unified = true;
  for (const bool reclaim : {false, true}) {
    SCOPED_TRACE(reclaim ? "with reclaiming" : "");
    engine.set_reclaim(reclaim);
    engine.reset_statistics();
    Context context(options);
    context.feed(engine.text(0, 150), 0);
    context.feed_each(engine.text(150, 2), 0);
    for (const llama_seq_id s : {1, 2}) {
      llama_memory_seq_cp(context.memory(), 0, s, -1, -1);
      context.set_next(s, 152);
    }
    for (std::size_t i = 0; i < 6; ++i)
      for (const llama_seq_id s : {0, 1, 2})
        context.feed(engine.text(static_cast<std::size_t>(s) * 70 + 152 + i, 1), s);
    for (const llama_seq_id s : {0, 1, 2}) {
      auto rest = engine.text(150, 2);
      for (const llama_token token : engine.text(static_cast<std::size_t>(s) * 70 + 152, 6))
        rest.push_back(token);
      Rows expected = run(Options{}, engine.text(0, 150), rest);
      if (s != 0) expected.erase(expected.begin(), expected.begin() + 3);
      const Difference d = difference(expected, context.take(s));
      EXPECT_LT(d.mean_kl, 1e-3) << "sequence " << s << ": " << describe(d);
    }
    EXPECT_EQ(engine.statistics().rebuilds, 0u);
    EXPECT_EQ(engine.statistics().stateless_calls, 0u);
    EXPECT_EQ(engine.statistics().refusals, 0u);
  }
  engine.set_reclaim(false);
}

// Beams: after every step all sequences go on from the best one's past.
TEST_F(Sequences, BeamsReadNothingAgain) {
  engine.policy("zeromerge:budget=40");
  Options options = streams();
  options.unified = true;
  Context context(options);
  context.feed(engine.text(0, 150), 0);
  for (std::size_t step = 0; step < 6; ++step) {
    const auto best = static_cast<llama_seq_id>(step % 3);
    for (const llama_seq_id s : {0, 1, 2}) {
      if (step == 0 && s == 0) continue;
      if (s == best && step != 0) continue;
      llama_memory_seq_rm(context.memory(), s, -1, -1);
      llama_memory_seq_cp(context.memory(), step == 0 ? 0 : best, s, -1, -1);
    }
    std::vector<Piece> pieces;
    for (const llama_seq_id s : {0, 1, 2}) {
      context.set_next(s, static_cast<llama_pos>(150 + step));
      pieces.push_back({s, engine.text(static_cast<std::size_t>(s) * 70 + 150 + step, 1)});
    }
    context.feed_batch(pieces);
  }
  EXPECT_EQ(engine.statistics().rebuilds, 0u);
  EXPECT_EQ(engine.statistics().stateless_calls, 0u);
  // The first sequence's last row comes from what the best ones have said before it.
  std::vector<llama_token> rest;
  for (std::size_t step = 0; step < 6; ++step) {
    const std::size_t said_by = step == 5 ? 0 : (step + 1) % 3;
    rest.push_back(engine.text(said_by * 70 + 150 + step, 1).front());
  }
  const Rows expected = run(Options{}, engine.text(0, 150), rest);
  const Difference d = difference({expected.back()}, {context.take(0).back()});
  EXPECT_LT(d.mean_kl, 1e-3) << describe(d);
}

// A prefix that sequences share lies in the stream once.
TEST_F(Sequences, InOneStreamMayShareAPrefix) {
  Options options = streams();
  options.unified = true;
  const auto prefix = engine.text(0, 70);
  Context context(options);
  context.feed(prefix, 0);
  llama_memory_seq_cp(context.memory(), 0, 1, -1, -1);
  context.set_next(1, 70);
  context.feed_batch({Piece{0, engine.text(70, 3)}, Piece{1, engine.text(140, 3)}});
  context.feed_each(engine.text(73, 2), 0);
  context.feed_each(engine.text(143, 2), 1);
  for (const auto& [sequence, first] : {std::pair<llama_seq_id, std::size_t>{0, 70}, {1, 140}}) {
    Context reference(plain());
    reference.feed(prefix);
    reference.take();
    reference.feed(engine.text(first, 3));
    reference.feed_each(engine.text(first + 3, 2));
    Rows got = context.take(sequence);
    if (sequence == 0) got.erase(got.begin());
    expect_equal(reference.take(), got);
  }
  EXPECT_EQ(engine.statistics().stateless_calls, 0u);
  EXPECT_EQ(engine.statistics().rebuilds, 0u);
}

}  // namespace
}  // namespace zeromerge::test
