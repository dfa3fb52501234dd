// Presets: names for compositions that zeromerge's keys can say, and the defaults that each changes. What the
// text gives itself always counts more.
#pragma once

#include <array>
#include <string>
#include <utility>
#include <vector>

#include "zeromerge/cache/spec.hpp"

namespace zeromerge::detail {

using Defaults = std::vector<std::pair<const char*, const char*>>;

struct Preset {
  const char* name;
  Defaults defaults;
};

// What papers call their window of last tokens is the tail here, so that decoded tokens pass through it too.
inline const std::vector<Preset>& presets() {
  static const Defaults snapkv = {{"window", "100%"}, {"tail", "32"},    {"least", "64"},
                                  {"sinks", "0"},     {"merge", "drop"}, {"importance", "mean"},
                                  {"decay", "0.98"}};
  const auto like = [](Defaults defaults, const Defaults& others) {
    defaults.insert(defaults.begin(), others.begin(), others.end());  // the first of a key counts
    return defaults;
  };
  static const std::vector<Preset> all = {
      {"zeromerge", {}},
      {"h2o", {{"decay", "1"}, {"score", "exact"}, {"tail", "50%"}, {"sinks", "0"}, {"merge", "drop"}}},
      {"snapkv", snapkv},
      {"pyramidkv", like(snapkv, {{"heads", "pyramid"}})},
      {"adakv", like(snapkv, {{"heads", "adaptive"}, {"floor", "20%"}})},
      {"keydiff", {{"keydiff", "100%"}, {"evict", "16"}, {"tail", "10%"}, {"merge", "drop"}}},
      {"expected",
       {{"expected", "100%"},
        {"heads", "adaptive"},
        {"floor", "20%"},
        {"tail", "10%"},
        {"merge", "drop"},
        {"importance", "mean"},
        {"decay", "0.98"}}},
      {"defensive",
       like(snapkv, {{"defensive", "100%"}, {"window", "0%"}, {"heads", "adaptive"}, {"floor", "0%"}})},
      {"kvzip",
       {{"second", "100%"},
        {"heads", "global"},
        {"tail", "10%"},
        {"merge", "drop"},
        {"importance", "mean"},
        {"decay", "0.98"}}},
      {"best",
       {{"heads", "two-stage"},
        {"replay", "100%"},
        {"tail", "15"},  // and the one to come: a tile of rows in 8 bits
        {"local", "6%"},
        {"least", "100"},
        {"lowest", "32"},
        {"merge", "drop"},
        {"importance", "mean"},
        {"decay", "0.98"},
        {"hold", "512"},
        {"refit", "256"},
        {"rounding", "queries"},
        {"storage", "q4"},
        {"precise", "20%"}}},
  };
  return all;
}

inline std::string preset_names() {
  std::string names;
  for (const Preset& preset : presets()) names += (names.empty() ? "" : ", ") + std::string(preset.name);
  return names;
}

// Gives the spec the defaults of the preset that it names. False: none has this name.
inline bool assume_preset(Spec& spec) {
  for (const Preset& preset : presets()) {
    if (spec.name() != preset.name) continue;
    if (spec.name() != "zeromerge" && spec.has("reference"))
      fail("policy '", spec.text(), "': reference= is for zeromerge alone; leave it out");
    for (const auto& [key, value] : preset.defaults) spec.assume(key, value);
    return true;
  }
  return false;
}

}  // namespace zeromerge::detail

namespace zeromerge {

// Whether a policy chooses by a second reading of the prompt, which the engine has to do, see
// LayerCache::begin_second_reading. Throws Error if the text is no spec.
inline bool needs_second_reading(const std::string& text) {
  Spec spec(text);
  return detail::assume_preset(spec) && spec.amount("second", Amount{0.0, true}).value > 0.0;
}

}  // namespace zeromerge
