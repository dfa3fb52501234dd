// Math.Find: a long list of numbers; questions for its largest, smallest and middle one.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "evaluate/random.hpp"
#include "evaluate/scbench/session.hpp"

namespace evaluate::scbench {

// low and high are among them.
inline std::vector<std::uint64_t> draw_numbers(Random& random, std::size_t count, std::uint64_t low,
                                               std::uint64_t high) {
  std::vector<std::uint64_t> numbers;
  for (std::size_t i = 0; i < count; ++i) numbers.push_back(low + random.below(high - low + 1));
  return numbers;
}

// "maximum", "minimum" or "median": the lower middle of an even count.
inline std::uint64_t statistic(std::vector<std::uint64_t> numbers, const std::string& name) {
  std::sort(numbers.begin(), numbers.end());
  if (name == "maximum") return numbers.back();
  if (name == "minimum") return numbers.front();
  return numbers[(numbers.size() - 1) / 2];
}

// Every session has a range of its own, so that its ends cannot be guessed.
inline Session math_find(std::uint64_t seed, std::size_t count) {
  Random random(seed);
  const std::uint64_t low = random.below(400);
  const std::uint64_t high = 600 + random.below(400);
  const std::vector<std::uint64_t> numbers = draw_numbers(random, count, low, high);
  std::vector<std::string> names = {"maximum", "minimum", "median"};
  random.shuffle(names);
  Session session;
  session.instruction = "Look at the list of numbers below.\n\n";
  for (const std::uint64_t number : numbers)
    session.context += (session.context.empty() ? "[" : ", ") + std::to_string(number);
  session.context += "]";
  for (std::size_t i = 0; i < names.size(); ++i)
    session.turns.push_back({"\nWhat is the " + names[i] + "? The " + names[i] + " is: ",
                             std::to_string(statistic(numbers, names[i])), i});
  return session;
}

}  // namespace evaluate::scbench
