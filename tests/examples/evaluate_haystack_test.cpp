// How needles get into a text.
#include <gtest/gtest.h>

#include <set>

#include "evaluate/haystack.hpp"

namespace {

using namespace evaluate;

std::string prose() {
  std::string text;
  for (int i = 0; i < 80; ++i)
    text += "Sentence " + std::to_string(i) + (i % 9 == 0 ? " ends.\n" : " ends. ");
  return text;
}

TEST(EvaluateHaystack, HasEveryNeedleOnceAtTheEndOfASentence) {
  for (const std::uint64_t seed : {1u, 2u, 3u}) {
    Random random(seed);
    const auto needles = draw_needles(random, 5);
    const std::string all = with_needles(prose(), needles, random);
    std::string without = all;
    std::size_t last = 0;
    for (std::size_t i = 0; i < needles.size(); ++i) {
      const std::string sentence = " " + needles[i].sentence();
      const std::size_t at = all.find(sentence);
      ASSERT_NE(at, std::string::npos);
      EXPECT_EQ(all.find(sentence, at + 1), std::string::npos);
      EXPECT_EQ(all[at - 1], '.');
      EXPECT_GE(at, last) << "needles keep their order";
      EXPECT_NEAR(static_cast<double>(at) / static_cast<double>(all.size()),
                  (static_cast<double>(i) + 0.5) / 5.0, 0.15);
      last = at;
      without.erase(without.find(sentence), sentence.size());
    }
    EXPECT_EQ(without, prose());
  }
}

TEST(EvaluateHaystack, DrawsDistinctWordsAndNumbers) {
  Random random(4);
  std::set<std::string> words, numbers;
  for (const Needle& needle : draw_needles(random, 60)) {
    words.insert(needle.word);
    numbers.insert(needle.number);
    EXPECT_EQ(needle.number.size(), 5u);
    EXPECT_EQ(needle.question() + needle.answer() + ".", "\n\n" + needle.sentence())
        << "what is asked continues as the needle does";
  }
  EXPECT_EQ(words.size(), 60u);
  EXPECT_EQ(numbers.size(), 60u);
}

TEST(EvaluateHaystack, TakesATextWithoutSentences) {
  Random random(5);
  const auto needles = draw_needles(random, 3);
  for (const std::string text : {"", "no end at all"}) {
    const std::string all = with_needles(text, needles, random);
    for (const Needle& needle : needles) EXPECT_NE(all.find(needle.sentence()), std::string::npos);
  }
}

TEST(EvaluateHaystack, ReadsTheFirstNumberOfAnAnswer) {
  EXPECT_EQ(first_number(" 48213. The"), "48213");
  EXPECT_EQ(first_number("it is 7, not 8"), "7");
  EXPECT_EQ(first_number("none"), "");
}

}  // namespace
