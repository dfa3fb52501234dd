// A generated context and the questions about it: the shared-context sessions of SCBench (arXiv 2412.10319).
// The same seed gives the same bytes everywhere.
#pragma once

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "evaluate/haystack.hpp"

namespace evaluate::scbench {

struct Turn {
  std::string question;
  std::string answer;
  std::size_t place = 0;  // of what it asks for, in the order of the context
};

struct Session {
  std::string instruction;
  std::string context;
  std::vector<Turn> turns;

  std::string prompt() const { return instruction + context; }
};

// Retrieval: whether the answer is in what was said.
inline double contains(std::string_view said, const Turn& turn) {
  return said.find(turn.answer) != std::string_view::npos ? 1.0 : 0.0;
}

// Whether the first number that was said is the answer.
inline double number_is(std::string_view said, const Turn& turn) {
  return first_number(said) == turn.answer ? 1.0 : 0.0;
}

// The share of the answer's words that were said, in any case and order.
inline double share_of_words(std::string_view said, const Turn& turn) {
  const auto capital = [](std::string_view text) {
    std::string all(text);
    for (char& c : all) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    return all;
  };
  const std::string all = capital(said), words = capital(turn.answer);
  double count = 0.0, found = 0.0;
  for (std::size_t from = 0; from < words.size();) {
    const std::size_t end = std::min(words.find(' ', from), words.size());
    count += 1.0;
    found += all.find(words.substr(from, end - from)) != std::string::npos ? 1.0 : 0.0;
    from = end + 1;
  }
  return count > 0.0 ? found / count : 0.0;
}

}  // namespace evaluate::scbench
