// What the emulation finds wrong with a kernel or with the calls around it. The kernel is abandoned at once,
// so the first fault is the one that is told.
#pragma once

#include <ostream>
#include <source_location>
#include <stdexcept>
#include <string>
#include <string_view>

namespace zeromerge::simt {

struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A line of a kernel's source; the fallback is for Clang before 16.
#if defined(__cpp_lib_source_location)
using Place = std::source_location;
#else
class Place {
 public:
  static constexpr Place current(const char* file = __builtin_FILE(), unsigned line = __builtin_LINE()) {
    Place place;
    place.file_ = file;
    place.line_ = line;
    return place;
  }
  constexpr const char* file_name() const { return file_; }
  constexpr unsigned line() const { return line_; }

 private:
  const char* file_ = "";
  unsigned line_ = 0;
};
#endif

// Written as "decode_attention.hpp:120". No string of its own: a thread that reports a fault never comes back
// to free one.
struct At {
  const Place& place;
  explicit At(const Place& p) : place(p) {}
  friend std::ostream& operator<<(std::ostream& out, const At& d) {
    std::string_view file = d.place.file_name();
    file.remove_prefix(file.find_last_of('/') + 1);
    return out << file << ":" << d.place.line();
  }
};
inline bool same(const Place& a, const Place& b) {
  return a.line() == b.line() &&
         (a.file_name() == b.file_name() || std::string_view(a.file_name()) == b.file_name());
}

}  // namespace zeromerge::simt
