// ICL.ManyShot: each example's answer is what its swaps come to.
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "evaluate/scbench/many_shot.hpp"

namespace {

using namespace evaluate::scbench;
using evaluate::Random;

// The option that a question's text comes to, read from the text alone.
std::string solve(const std::string& question, std::size_t people) {
  const auto word_at = [&](std::size_t at) {
    return question.substr(at, question.find_first_of(" .,\n", at) - at);
  };
  std::map<std::string, std::string> has;
  const std::size_t first_stop = question.find('.');
  for (std::size_t at = question.find(" has the "); at < first_stop; at = question.find(" has the ", at + 1))
    has[question.substr(question.find_last_of(" \n", at - 1) + 1,
                        at - question.find_last_of(" \n", at - 1) - 1)] = word_at(at + 9);
  EXPECT_EQ(has.size(), people);
  for (std::size_t at = question.find(" and "); at != std::string::npos; at = question.find(" and ", at + 1))
    std::swap(has.at(question.substr(question.find_last_of(" \n", at - 1) + 1,
                                     at - question.find_last_of(" \n", at - 1) - 1)),
              has.at(word_at(at + 5)));
  const std::string thing = has.at(word_at(question.find("At the end, ") + 12));
  return question.substr(question.find(") " + thing + " ball") - 2, 3);
}

TEST(ScbenchManyShot, HasTheAnswerThatItsSwapsComeTo) {
  Random random(6);
  for (const std::size_t people : {2u, 3u, 7u})
    for (int i = 0; i < 30; ++i) {
      const Shot shot = draw_shot(random, people);
      EXPECT_EQ(solve(shot.question, people), shot.answer) << shot.question;
    }
}

TEST(ScbenchManyShot, IsTheSameForTheSameSeed) {
  const Session session = many_shot(1, 10, 3, 5);
  EXPECT_EQ(session.context, many_shot(1, 10, 3, 5).context);
  EXPECT_NE(session.context, many_shot(2, 10, 3, 5).context);
  ASSERT_EQ(session.turns.size(), 5u);
  for (const Turn& turn : session.turns) {
    EXPECT_EQ(turn.answer, solve(turn.question, 3));
    EXPECT_EQ(session.context.find(turn.question), std::string::npos);
  }
}

}  // namespace
