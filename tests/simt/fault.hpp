// What the emulation finds wrong with a kernel or with the calls around it. The kernel is abandoned at once,
// so the first fault is the one that is told.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace zeromerge::simt {

struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A line of a kernel's source: std::source_location, which not every compiler has yet.
struct Place {
  const char* file = "";
  int line = 0;
};

// "decode_attention.hpp:120"
inline std::string describe(const Place& place) {
  std::string_view file = place.file;
  file.remove_prefix(file.find_last_of('/') + 1);
  return std::string(file) + ":" + std::to_string(place.line);
}
inline bool same(const Place& a, const Place& b) {
  return a.line == b.line && std::string_view(a.file) == b.file;
}

}  // namespace zeromerge::simt
