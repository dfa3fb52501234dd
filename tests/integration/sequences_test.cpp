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

TEST_F(Sequences, InOneStreamAreAnsweredFromTheEnginesCells) {
  Options options = streams();
  options.sequences = 2;
  options.unified = true;
  std::vector<Part> all = parts(4);
  all.resize(2);
  Context context(options);
  feed_together(context, all);
  // llama.cpp's own flash attention answers.
  for (std::size_t s = 0; s < all.size(); ++s)
    expect_close(run(plain(), all[s].prompt, all[s].rest), context.take(static_cast<llama_seq_id>(s)), 5e-4);
  EXPECT_GT(engine.statistics().stateless_calls, 0u);
}

// The first is answered from its cache until the second comes.
TEST_F(Sequences, InOneStreamMayComeOneAfterTheOther) {
  Options options = streams();
  options.sequences = 2;
  options.unified = true;
  const auto all = parts(4);
  Context context(options);
  context.feed(all[0].prompt, 0);
  context.feed_each({all[0].rest[0], all[0].rest[1]}, 0);
  EXPECT_EQ(engine.statistics().stateless_calls, 0u);
  context.feed(all[1].prompt, 1);
  context.feed_each({all[0].rest[2], all[0].rest[3]}, 0);
  context.feed_each(all[1].rest, 1);
  expect_close(run(plain(), all[0].prompt, all[0].rest), context.take(0), 5e-4);
  expect_close(run(plain(), all[1].prompt, all[1].rest), context.take(1), 5e-4);
  EXPECT_GT(engine.statistics().stateless_calls, 0u);
  // Cleared, the stream is the plug-in's again.
  context.clear();
  engine.reset_statistics();
  context.feed(all[2].prompt, 0);
  context.feed_each(all[2].rest, 0);
  expect_equal(run(plain(), all[2].prompt, all[2].rest), context.take(0));
  EXPECT_EQ(engine.statistics().stateless_calls, 0u);
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
    expect_close(reference.take(), got, 5e-4);
  }
}

}  // namespace
}  // namespace zeromerge::test
