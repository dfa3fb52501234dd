// What a call is refused with.
#pragma once

#include <string>

#include "zeromerge/core/errors.hpp"

namespace zeromerge::test {

// The Error's text, or "" if f() throws none.
template <class F>
std::string refusal(const F& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}
inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace zeromerge::test
