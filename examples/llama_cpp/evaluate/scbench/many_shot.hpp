// ICL.ManyShot (tracking of shuffled objects, BIG-bench hard): worked examples, and one more as a question.
// People swap what they have, and it is asked what one of them has at the end.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "evaluate/random.hpp"
#include "evaluate/scbench/session.hpp"

namespace evaluate::scbench {

inline constexpr std::array<const char*, 7> kPeople = {"Alice", "Bob",  "Claire",  "Dave",
                                                       "Eve",   "Fred", "Gertrude"};
inline constexpr std::array<const char*, 7> kThings = {"red",   "blue",  "green", "yellow",
                                                       "white", "black", "orange"};

struct Shot {
  std::string question;
  std::string answer;  // "(B)", the option
};

// people: 2 to 7; as many swaps as people. Draws who has what, the order of the options, the swaps, and who
// is asked about.
inline Shot draw_shot(Random& random, std::size_t people) {
  std::vector<std::size_t> has = random.choose(people, people);
  const std::vector<std::size_t> options = random.choose(people, people);
  Shot shot;
  for (std::size_t p = 0; p < people; ++p)
    shot.question += std::string(p > 0 ? ", " : "") + kPeople[p] + " has the " + kThings[has[p]] + " ball";
  shot.question += ".";
  for (std::size_t i = 0; i < people; ++i) {
    const std::vector<std::size_t> pair = random.choose(people, 2);
    std::swap(has[pair[0]], has[pair[1]]);
    shot.question += std::string(" ") + kPeople[pair[0]] + " and " + kPeople[pair[1]] + " swap balls.";
  }
  const std::size_t asked = random.below(people);
  shot.question += std::string(" At the end, ") + kPeople[asked] + " has the\nOptions:";
  for (std::size_t i = 0; i < people; ++i) {
    const std::string option = std::string("(") + static_cast<char>('A' + i) + ")";
    shot.question += " " + option + " " + kThings[options[i]] + " ball";
    if (options[i] == has[asked]) shot.answer = option;
  }
  shot.question += "\nAnswer:";
  return shot;
}

inline Session many_shot(std::uint64_t seed, std::size_t shots, std::size_t people, std::size_t turns) {
  Random random(seed);
  Session session;
  session.instruction = "Follow who has which ball, and give the option that is right.\n";
  for (std::size_t i = 0; i < shots + turns; ++i) {
    const Shot shot = draw_shot(random, people);
    if (i < shots)
      session.context += "\n" + shot.question + " " + shot.answer + "\n";
    else
      session.turns.push_back({"\n" + shot.question + " ", shot.answer, i - shots});
  }
  return session;
}

}  // namespace evaluate::scbench
