// The kinds of session that are generated, at sizes for small models, and how their answers are scored.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "evaluate/scbench/key_value.hpp"
#include "evaluate/scbench/many_shot.hpp"
#include "evaluate/scbench/math_find.hpp"
#include "evaluate/scbench/multi_hop.hpp"
#include "evaluate/scbench/prefix_suffix.hpp"

namespace evaluate::scbench {

struct Kind {
  const char* name;
  std::size_t least;  // units: pairs, strings, lines, numbers, shots
  Session (*draw)(std::uint64_t seed, std::size_t units);
  double (*score)(std::string_view said, const Turn& turn);  // 0 to 1
};

inline constexpr std::array<Kind, 5> kKinds = {
    Kind{"retr.kv", 5, [](std::uint64_t seed, std::size_t n) { return key_value(seed, n, 5, Name::hex8); },
         contains},
    Kind{"retr.prefix_suffix", 5,
         [](std::uint64_t seed, std::size_t n) { return prefix_suffix(seed, n, 10, 5); }, contains},
    Kind{"retr.multi_hop", 3, [](std::uint64_t seed, std::size_t n) { return multi_hop(seed, n, 5, 2); },
         share_of_words},
    Kind{"math.find", 3, math_find, number_is},
    Kind{"icl.many_shot", 1, [](std::uint64_t seed, std::size_t n) { return many_shot(seed, n, 3, 5); },
         contains}};

}  // namespace evaluate::scbench
