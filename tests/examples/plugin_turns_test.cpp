// Which rows the plug-in takes for a prompt's and which for decoded ones.
#include "plugin/turns.hpp"

#include <gtest/gtest.h>

namespace zeromerge::plugin {
namespace {

// A call of a sequence: '1' is a row whose output is asked for.
class Calls {
 public:
  RowKind call(const std::string& outputs) {
    std::vector<char> wanted;
    for (const char c : outputs) wanted.push_back(c == '1' ? 1 : 0);
    const RowKind kind = turns.next(tokens, wanted);
    tokens += outputs.size();
    return kind;
  }
  RowKind unknown(std::size_t rows) {
    const RowKind kind = turns.next_unknown(tokens, rows);
    tokens += rows;
    return kind;
  }
  void back(std::size_t rows) { turns.cut(tokens -= rows); }

  Turns turns;
  std::size_t tokens = 0;
};

constexpr RowKind kPrompt = RowKind::prompt;
constexpr RowKind kDecoded = RowKind::decoded;

TEST(Turns, APromptMayComeInAnyPieces) {
  for (const std::vector<std::string>& pieces : {std::vector<std::string>{"0000000001"},
                                                 {"000000000", "1"},
                                                 {"0", "00000000", "1"},
                                                 {"0", "0", "0", "0", "0", "1"},
                                                 {"1"},
                                                 {"00000001"}}) {
    Calls calls;
    for (const std::string& piece : pieces) EXPECT_EQ(calls.call(piece), kPrompt);
    EXPECT_EQ(calls.call("1"), kDecoded);
    EXPECT_EQ(calls.call("1"), kDecoded);
  }
}

TEST(Turns, WhatIsSampledIsDecodedHoweverManyRowsAreCheckedAtOnce) {
  Calls calls;
  calls.call("00001");
  EXPECT_EQ(calls.call("11111"), kDecoded);
  calls.back(3);
  EXPECT_EQ(calls.call("11111"), kDecoded);
  calls.back(5);
  EXPECT_EQ(calls.call("1"), kDecoded);
}

TEST(Turns, MoreRowsThanDraftsHaveAreAPrompts) {
  Calls calls;
  calls.call("00001");
  EXPECT_EQ(calls.call(std::string(Turns::kMostDrafts, '1')), kDecoded);
  EXPECT_EQ(calls.call(std::string(Turns::kMostDrafts + 1, '1')), kPrompt);
}

TEST(Turns, ANextTurnIsAPromptAgain) {
  Calls calls;
  calls.call("00001");
  calls.call("1");
  EXPECT_EQ(calls.call("0000"), kPrompt);
  EXPECT_EQ(calls.call("1"), kPrompt) << "its last token came alone";
  EXPECT_EQ(calls.call("1"), kDecoded);
  EXPECT_EQ(calls.call("01"), kPrompt);
  EXPECT_EQ(calls.call("1"), kDecoded);
}

// Servers feed a prompt's last token again where the cache has all of it.
TEST(Turns, APromptWhoseLastRowIsTakenBackGoesOn) {
  Calls calls;
  calls.call("00001");
  calls.back(1);
  EXPECT_EQ(calls.call("1"), kPrompt);
  EXPECT_EQ(calls.call("1"), kDecoded);
  calls.back(1);
  EXPECT_EQ(calls.call("1"), kDecoded);
}

TEST(Turns, WhatIsTakenBackAcrossATurnGoesOnWhereThatWas) {
  Calls calls;
  calls.call("00001");
  calls.call("1");
  calls.call("0001");
  calls.call("1");
  calls.back(5);
  EXPECT_EQ(calls.call("1"), kDecoded) << "behind the first answer";
  calls.back(3);
  EXPECT_EQ(calls.call("1"), kPrompt) << "within the first prompt";
}

TEST(Turns, TheCallerMayEndAPrompt) {
  Calls calls;
  calls.call("00000");
  calls.turns.end_prompt(calls.tokens);
  EXPECT_EQ(calls.call("1"), kDecoded);
  calls.back(1);
  EXPECT_EQ(calls.call("1"), kDecoded);
  EXPECT_EQ(calls.call("00"), kPrompt);
}

// The first and the last token of a prompt may come alone.
TEST(Turns, WithoutOutputsAPromptEndsWithTheThirdRowInSuccessionThatComesAlone) {
  Calls calls;
  EXPECT_EQ(calls.unknown(1), kPrompt);
  EXPECT_EQ(calls.unknown(64), kPrompt);
  EXPECT_EQ(calls.unknown(1), kPrompt);
  EXPECT_EQ(calls.unknown(1), kPrompt);
  EXPECT_EQ(calls.unknown(64), kPrompt);
  EXPECT_EQ(calls.unknown(1), kPrompt);
  EXPECT_EQ(calls.unknown(1), kPrompt);
  EXPECT_EQ(calls.unknown(1), kDecoded);
  EXPECT_EQ(calls.unknown(1), kDecoded);
  EXPECT_EQ(calls.unknown(5), kPrompt);
}

}  // namespace
}  // namespace zeromerge::plugin
