// The two ways to fail: what the user can put right (exit code 2) and everything else (std::runtime_error,
// exit code 1).
#pragma once

#include <stdexcept>

namespace generate {

struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace generate
