// Retr.Prefix-Suffix: a list of random strings; a question gives how one of them begins and ends.
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

// How many characters of a string's beginning and end it takes, at least 4, to tell it from all others.
inline std::size_t distinct_ends(const std::vector<std::string>& strings, std::size_t which) {
  const std::string& one = strings[which];
  for (std::size_t p = std::min<std::size_t>(4, one.size());; ++p) {
    const auto alike = std::count_if(strings.begin(), strings.end(), [&](const std::string& other) {
      return other.starts_with(one.substr(0, p)) && other.ends_with(one.substr(one.size() - p));
    });
    if (alike == 1 || p == one.size()) return p;
  }
}

// Draws the strings character by character, without doubles, then the places asked for as key_value does.
inline Session prefix_suffix(std::uint64_t seed, std::size_t count, std::size_t length, std::size_t turns) {
  static constexpr char kLetters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  Random random(seed);
  std::vector<std::string> strings;
  while (strings.size() < count) {
    std::string one;
    for (std::size_t i = 0; i < length; ++i) one += kLetters[random.below(52)];
    if (std::find(strings.begin(), strings.end(), one) == strings.end()) strings.push_back(std::move(one));
  }
  Session session;
  session.instruction = "Find the string with the given prefix and suffix in the list below.\n\n";
  for (const std::string& one : strings)
    session.context += (session.context.empty() ? "['" : ", '") + one + "'";
  session.context += "]";
  for (const std::size_t i : random.spread(count, turns)) {
    const std::size_t p = distinct_ends(strings, i);
    session.turns.push_back({"\nPrefix: " + strings[i].substr(0, p) +
                                 "\nSuffix: " + strings[i].substr(length - p) +
                                 "\nThe string with this prefix and suffix is: ",
                             strings[i], i});
  }
  return session;
}

}  // namespace evaluate::scbench
