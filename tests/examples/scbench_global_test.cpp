// Retr.MultiHop and Math.Find byte for byte, and what every session of theirs has in common.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "evaluate/scbench/math_find.hpp"
#include "evaluate/scbench/multi_hop.hpp"

namespace {

using namespace evaluate::scbench;
using evaluate::Random;

TEST(ScbenchMultiHop, IsTheGoldenSession) {
  EXPECT_EQ(std::string(kFiller).size(), 90u);
  Random random(1);
  const std::vector<Chain> chains = draw_chains(random, 2, 2);
  const std::vector<std::string> expected = {kFiller,
                                             "VAR LPBSQ = 36162",
                                             "VAR TTODF = 18165",
                                             "VAR OIBOH = VAR LPBSQ ",
                                             kFiller,
                                             "VAR CRLYS = VAR TTODF ",
                                             kFiller,
                                             kFiller,
                                             "VAR BVFHQ = VAR OIBOH ",
                                             kFiller,
                                             "VAR HEYYI = VAR CRLYS ",
                                             kFiller};
  EXPECT_EQ(scatter(random, chains, 6), expected);
  const Session session = multi_hop(1, 6, 2, 2);
  std::set<std::string> answers;
  for (const Turn& turn : session.turns) answers.insert(turn.answer);
  EXPECT_EQ(answers, (std::set<std::string>{"TTODF CRLYS HEYYI", "LPBSQ OIBOH BVFHQ"}));
}

TEST(ScbenchMultiHop, KeepsStatementsInOrderAndChainsApart) {
  for (const std::uint64_t seed : {2u, 3u, 4u}) {
    Random random(seed);
    const std::vector<Chain> chains = draw_chains(random, 5, 3);
    const std::vector<std::string> sentences = scatter(random, chains, 20);
    EXPECT_EQ(sentences.size(), 20u + 5u * 4u);
    std::set<std::string> names;
    for (const Chain& chain : chains) {
      names.insert(chain.names.begin(), chain.names.end());
      auto from = sentences.begin();
      for (std::size_t j = 0; j < chain.names.size(); ++j) {
        from = std::find(from, sentences.end(), chain.statement(j));
        ASSERT_NE(from, sentences.end()) << chain.statement(j);
      }
    }
    EXPECT_EQ(names.size(), 20u);
    const Session session = multi_hop(seed, 20, 5, 3);
    ASSERT_EQ(session.turns.size(), 5u);
    for (const Turn& turn : session.turns) EXPECT_EQ(turn.answer.size(), 4u * 6u - 1u);
  }
}

TEST(ScbenchMathFind, IsTheGoldenSession) {
  Random random(3);
  const auto numbers = draw_numbers(random, 9, 100, 250);
  EXPECT_EQ(numbers, (std::vector<std::uint64_t>{125, 109, 247, 105, 247, 155, 185, 122, 175}));
  EXPECT_EQ(statistic(numbers, "maximum"), 247u);
  EXPECT_EQ(statistic(numbers, "minimum"), 105u);
  EXPECT_EQ(statistic(numbers, "median"), 155u);
  EXPECT_EQ(statistic({4, 1, 3, 2}, "median"), 2u) << "the lower middle";
}

TEST(ScbenchMathFind, AnswersWhatTheListSays) {
  for (const std::uint64_t seed : {1u, 2u, 3u}) {
    const Session session = math_find(seed, 101);
    std::vector<int> numbers;
    for (std::size_t at = 0; at < session.context.size();) {
      numbers.push_back(std::stoi(session.context.substr(at + (at == 0 ? 1 : 2))));
      at = std::min(session.context.find(',', at + 1), session.context.size());
    }
    ASSERT_EQ(numbers.size(), 101u);
    for (const Turn& turn : session.turns) {
      const int answer = std::stoi(turn.answer);
      const auto less = std::count_if(numbers.begin(), numbers.end(), [&](int x) { return x < answer; });
      const auto more = std::count_if(numbers.begin(), numbers.end(), [&](int x) { return x > answer; });
      const bool is_maximum = turn.question.find("maximum") != std::string::npos;
      const bool is_minimum = turn.question.find("minimum") != std::string::npos;
      EXPECT_LE(more, is_maximum ? 0 : is_minimum ? 100 : 50);
      EXPECT_LE(less, is_minimum ? 0 : is_maximum ? 100 : 50);
    }
    EXPECT_EQ(session.turns.size(), 3u);
  }
}

}  // namespace
