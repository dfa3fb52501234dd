// Retr.KV and Retr.Prefix-Suffix byte for byte, and what every session of theirs has in common.
#include <gtest/gtest.h>

#include <set>

#include "evaluate/scbench/key_value.hpp"
#include "evaluate/scbench/prefix_suffix.hpp"

namespace {

using namespace evaluate::scbench;
using evaluate::Random;

std::size_t occurrences(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST(ScbenchRandom, IsSplitMix64) {
  Random random(42);
  EXPECT_EQ(random.next(), 0xbdd732262feb6e95u);
  EXPECT_EQ(random.next(), 0x28efe333b266f103u);
  EXPECT_EQ(random.next(), 0x47526757130f9f52u);
  EXPECT_EQ(random.next(), 0x581ce1ff0e4ae394u);
}

TEST(ScbenchRandom, DrawsBelowAndSpreads) {
  Random random(1);
  std::set<std::uint64_t> seen;
  for (int i = 0; i < 200; ++i) seen.insert(random.below(7));
  EXPECT_EQ(seen.size(), 7u);
  EXPECT_EQ(*seen.rbegin(), 6u);
  EXPECT_EQ(random.below(1), 0u);
  std::set<std::size_t> parts;
  for (const std::size_t i : random.spread(103, 10)) parts.insert((i * 10 + 9) / 103);
  EXPECT_EQ(parts.size(), 10u) << "one of each part";
  const auto chosen = random.choose(9, 9);
  EXPECT_EQ(std::set<std::size_t>(chosen.begin(), chosen.end()).size(), 9u);
}

TEST(ScbenchKeyValue, IsTheGoldenSession) {
  const Session small = key_value(7, 2, 2, Name::uuid);
  EXPECT_EQ(
      small.context,
      "JSON data:\n{\"63cbe1e4-5932-4dd7-844c-3cd7f43c661c\": \"e6984080-bab1-4a02-953a-eb70673e29cb\", "
      "\"73d33b66-6a1e-41da-bfda-be86cbbeaa11\": \"77cbc4a1-33c2-40f6-93fc-d6513d02befe\"}");
  EXPECT_EQ(small.turns[0].place, 0u);
  EXPECT_EQ(small.turns[1].place, 1u);
  const Session full = key_value(7, 2500, 5, Name::uuid);
  EXPECT_EQ(full.context.size(), 200011u);
  std::vector<std::size_t> places;
  for (const Turn& turn : full.turns) {
    places.push_back(turn.place);
    EXPECT_EQ(turn.question.size(), 93u);
  }
  EXPECT_EQ(places, (std::vector<std::size_t>{693, 2246, 1707, 344, 1478}));
}

TEST(ScbenchKeyValue, HasEveryAnswerOnceBehindItsKey) {
  for (const Name kind : {Name::uuid, Name::hex8})
    for (const std::uint64_t seed : {1u, 2u, 3u}) {
      const Session session = key_value(seed, 60, 5, kind);
      ASSERT_EQ(session.turns.size(), 5u);
      for (const Turn& turn : session.turns) {
        EXPECT_EQ(occurrences(session.context, turn.answer), 1u);
        const std::string key = turn.question.substr(6, kind == Name::uuid ? 38 : 10);
        EXPECT_EQ(occurrences(session.context, key + ": \"" + turn.answer + "\""), 1u) << key;
      }
      EXPECT_EQ(session.context, key_value(seed, 60, 5, kind).context);
      EXPECT_NE(session.context, key_value(seed + 1, 60, 5, kind).context);
    }
}

TEST(ScbenchPrefixSuffix, IsTheGoldenSession) {
  const Session session = prefix_suffix(5, 4, 10, 2);
  EXPECT_EQ(session.context, "['KkzFFQlHAr', 'DAXNLuTPrk', 'ZvMDHLeNzy', 'rBPuLxSDwb']");
  ASSERT_EQ(session.turns.size(), 2u);
  EXPECT_NE(session.turns[0].question.find("Prefix: KkzF\nSuffix: lHAr\n"), std::string::npos);
  EXPECT_NE(session.turns[1].question.find("Prefix: ZvMD\nSuffix: eNzy\n"), std::string::npos);
  EXPECT_EQ(session.turns[1].answer, "ZvMDHLeNzy");
  EXPECT_EQ(prefix_suffix(5, 6000, 25, 5).context.size(), 174000u);
}

TEST(ScbenchPrefixSuffix, GivesEndsThatOneStringHas) {
  EXPECT_EQ(distinct_ends({"aaaabbbbcccc", "aaaabxxxcccc", "aaaabbbbdddd"}, 2), 4u);
  EXPECT_EQ(distinct_ends({"aaaabbbbcccc", "aaaabxxxcccc"}, 0), 5u);
  const Session session = prefix_suffix(9, 50, 10, 5);
  for (const Turn& turn : session.turns) EXPECT_EQ(occurrences(session.context, turn.answer), 1u);
}

TEST(ScbenchScores, TellWhatWasSaid) {
  const Turn names{"", "ABCDE FGHIJ KLMNO", 0}, number{"", "417", 0};
  EXPECT_DOUBLE_EQ(contains("it is 417.", number), 1.0);
  EXPECT_DOUBLE_EQ(contains("it is 41 7", number), 0.0);
  EXPECT_DOUBLE_EQ(number_is(" 417, 5", number), 1.0);
  EXPECT_DOUBLE_EQ(number_is(" 5 417", number), 0.0);
  EXPECT_DOUBLE_EQ(number_is("none", number), 0.0);
  EXPECT_NEAR(share_of_words("klmno, ABCDE", names), 2.0 / 3.0, 1e-12);
}

}  // namespace
