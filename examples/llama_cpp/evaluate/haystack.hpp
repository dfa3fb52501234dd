// A text with needles in it: sentences that each name a number for a word, at sentence and line ends all over
// the text.
#pragma once

#include <algorithm>
#include <array>
#include <cctype>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "evaluate/random.hpp"

namespace evaluate {

struct Needle {
  std::string word;
  std::string number;

  std::string sentence() const { return "The special magic number for " + word + " is " + number + "."; }
  std::string question() const { return "\n\nThe special magic number for " + word + " is"; }
  std::string answer() const { return " " + number; }
};

inline constexpr std::array<const char*, 64> kNeedleWords = {
    "apple",   "basket", "candle",  "dragon",   "engine", "feather", "garden", "hammer", "island",  "jacket",
    "kettle",  "ladder", "mirror",  "needle",   "orange", "pencil",  "quartz", "rabbit", "saddle",  "tunnel",
    "violin",  "window", "yellow",  "zebra",    "anchor", "bottle",  "castle", "desert", "eagle",   "forest",
    "guitar",  "helmet", "insect",  "jungle",   "knight", "lemon",   "magnet", "napkin", "ocean",   "palace",
    "rocket",  "silver", "temple",  "umbrella", "valley", "walnut",  "bridge", "camera", "diamond", "falcon",
    "glacier", "harbor", "ivory",   "lantern",  "meadow", "nutmeg",  "oyster", "parrot", "ribbon",  "spider",
    "turtle",  "velvet", "whistle", "copper"};

// Distinct words, distinct numbers of five digits.
inline std::vector<Needle> draw_needles(Random& random, std::size_t count) {
  std::vector<Needle> needles;
  for (const std::size_t word : random.choose(kNeedleWords.size(), count)) {
    std::string number;
    do number = std::to_string(10000 + random.below(90000));
    while (std::any_of(needles.begin(), needles.end(), [&](const Needle& n) { return n.number == number; }));
    needles.push_back({kNeedleWords[word], number});
  }
  return needles;
}

// Places at which a sentence or a line has ended, rising; the end of the text is one.
inline std::vector<std::size_t> sentence_ends(std::string_view text) {
  std::vector<std::size_t> ends;
  for (std::size_t i = 1; i < text.size(); ++i) {
    const bool stop = text[i - 1] == '.' || text[i - 1] == '!' || text[i - 1] == '?';
    if (text[i] == '\n' || (stop && std::isspace(static_cast<unsigned char>(text[i])) != 0))
      ends.push_back(i);
  }
  ends.push_back(text.size());
  return ends;
}

// The text with each needle at the sentence or line end nearest to its depth: needle i lies anywhere in the
// i-th of as many equal parts of the text. The order of needles is theirs.
inline std::string with_needles(std::string_view text, const std::vector<Needle>& needles, Random& random) {
  const std::vector<std::size_t> ends = sentence_ends(text);
  std::string all;
  std::size_t copied = 0;
  for (std::size_t i = 0; i < needles.size(); ++i) {
    const std::size_t first = i * text.size() / needles.size();
    const std::size_t part = (i + 1) * text.size() / needles.size() - first;
    const std::size_t depth = first + random.below(std::max<std::size_t>(part, 1));
    const auto after = std::lower_bound(ends.begin(), ends.end(), depth);
    const std::size_t end =
        after != ends.begin() && depth - *(after - 1) < *after - depth ? *(after - 1) : *after;
    const std::size_t place = std::max(end, copied);
    all += text.substr(copied, place - copied);
    all += " " + needles[i].sentence();
    copied = place;
  }
  all += text.substr(copied);
  return all;
}

// The first whole number in an answer, or "".
inline std::string first_number(std::string_view text) {
  const auto digit = [](char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; };
  const auto* from = std::find_if(text.begin(), text.end(), digit);
  return std::string(from, std::find_if_not(from, text.end(), digit));
}

}  // namespace evaluate
