// Retr.MultiHop (variable tracking of RULER): chains of assignments scattered through filler; a question
// gives the value that a chain starts with and wants all of its variables.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "evaluate/random.hpp"
#include "evaluate/scbench/session.hpp"

namespace evaluate::scbench {

inline constexpr const char* kFiller =
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.\n";

struct Chain {
  std::string value;
  std::vector<std::string> names;  // [hops + 1]

  std::string statement(std::size_t j) const {
    return j == 0 ? "VAR " + names[0] + " = " + value : "VAR " + names[j] + " = VAR " + names[j - 1] + " ";
  }
};

// Draws all names, then all values, both without doubles.
inline std::vector<Chain> draw_chains(Random& random, std::size_t chains, std::size_t hops) {
  std::vector<std::string> names, values;
  while (names.size() < chains * (hops + 1)) {
    std::string name;
    for (int i = 0; i < 5; ++i) name += static_cast<char>('A' + random.below(26));
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(std::move(name));
  }
  while (values.size() < chains) {
    std::string value = std::to_string(10000 + random.below(89999));
    if (std::find(values.begin(), values.end(), value) == values.end()) values.push_back(std::move(value));
  }
  std::vector<Chain> all(chains);
  for (std::size_t c = 0; c < chains; ++c) {
    const auto first = names.begin() + static_cast<std::ptrdiff_t>(c * (hops + 1));
    all[c] = {values[c], {first, first + static_cast<std::ptrdiff_t>(hops + 1)}};
  }
  return all;
}

// `lines` of filler with each chain's statements, in their order, at places drawn from what is there so far.
inline std::vector<std::string> scatter(Random& random, const std::vector<Chain>& chains, std::size_t lines) {
  std::vector<std::string> sentences(lines, kFiller);
  for (const Chain& chain : chains) {
    std::vector<std::size_t> places = random.choose(sentences.size(), chain.names.size());
    std::sort(places.begin(), places.end());
    for (std::size_t j = 0; j < places.size(); ++j)
      sentences.insert(sentences.begin() + static_cast<std::ptrdiff_t>(places[j] + j), chain.statement(j));
  }
  return sentences;
}

// lines: at least hops + 1. A question for each chain.
inline Session multi_hop(std::uint64_t seed, std::size_t lines, std::size_t chains, std::size_t hops) {
  Random random(seed);
  const std::vector<Chain> all = draw_chains(random, chains, hops);
  Session session;
  session.instruction =
      "Memorize and track the chains of variable assignment hidden in the following text.\n\n";
  for (const std::string& sentence : scatter(random, all, lines))
    session.context += (session.context.empty() ? "" : " ") + sentence;
  for (std::size_t c = 0; c < chains; ++c) {
    Turn turn{"\nQuestion: Find all variables that are assigned the value " + all[c].value +
                  " in the text above. Answer: According to the chains of variable assignment, " +
                  std::to_string(hops + 1) + " variables are assigned the value " + all[c].value +
                  ", they are: ",
              "", c};
    for (const std::string& name : all[c].names) turn.answer += (turn.answer.empty() ? "" : " ") + name;
    session.turns.push_back(std::move(turn));
  }
  return session;
}

}  // namespace evaluate::scbench
