// Retr.KV: a JSON object of random keys and values, all of them distinct; a question gives a key.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "evaluate/random.hpp"
#include "evaluate/scbench/session.hpp"

namespace evaluate::scbench {

enum class Name { uuid, hex8 };  // 36 characters as SCBench has them, or 8 for small models

// uuid: two draws, version 4 and variant 10 set. hex8: the upper half of one draw.
inline std::string draw_name(Random& random, Name kind) {
  char text[40];
  if (kind == Name::hex8) {
    std::snprintf(text, sizeof text, "%08x", static_cast<unsigned>(random.next() >> 32));
    return text;
  }
  const std::uint64_t a = (random.next() & ~std::uint64_t{0xF000}) | 0x4000;
  const std::uint64_t b = (random.next() & ~(std::uint64_t{3} << 62)) | (std::uint64_t{2} << 62);
  std::snprintf(text, sizeof text, "%08x-%04x-%04x-%04x-%012llx", static_cast<unsigned>(a >> 32),
                static_cast<unsigned>(a >> 16 & 0xFFFF), static_cast<unsigned>(a & 0xFFFF),
                static_cast<unsigned>(b >> 48), static_cast<unsigned long long>(b & 0xFFFFFFFFFFFF));
  return text;
}

// Draws all pairs, key before value, then the places asked for, one in each of `turns` equal parts, shuffled.
inline Session key_value(std::uint64_t seed, std::size_t pairs, std::size_t turns, Name kind) {
  Random random(seed);
  std::set<std::string> taken;
  const auto fresh = [&] {
    for (;;)
      if (std::string name = draw_name(random, kind); taken.insert(name).second) return name;
  };
  Session session;
  session.instruction = "Extract the value corresponding to the specified key in the JSON object below.\n\n";
  session.context = "JSON data:\n{";
  std::vector<std::pair<std::string, std::string>> all;
  for (std::size_t i = 0; i < pairs; ++i) {
    std::string key = fresh();
    all.emplace_back(std::move(key), fresh());
    session.context += std::string(i > 0 ? ", " : "") + "\"" + all[i].first + "\": \"" + all[i].second + "\"";
  }
  session.context += "}";
  for (const std::size_t i : random.spread(pairs, turns))
    session.turns.push_back(
        {"\nKey: \"" + all[i].first + "\"\nThe value associated with the specified key is: ", all[i].second,
         i});
  return session;
}

}  // namespace evaluate::scbench
