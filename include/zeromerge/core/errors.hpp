// The one way the library refuses: an exception whose text names what was wrong, what was expected and the
// value found. Throwing lives out of line so that checks cost a compare in the caller. Without exceptions the
// text goes to stderr and the program aborts.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <stdexcept>
#include <string>

namespace zeromerge {

// Bad input of any kind: shapes, values, budgets, specs, files. A call that throws it has changed nothing.
struct Error : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

namespace detail {

[[noreturn]] inline void throw_error(const std::string& text) {
#if defined(__cpp_exceptions)
  throw Error(text);
#else
  std::fprintf(stderr, "zeromerge: %s\n", text.c_str());
  std::abort();
#endif
}

}  // namespace detail

// Throws Error with the parts written one after another.
template <class... Parts>
[[noreturn, gnu::noinline, gnu::cold]] void fail(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  detail::throw_error(text.str());
}

}  // namespace zeromerge
