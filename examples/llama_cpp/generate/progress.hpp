// A line on stderr that says how far a long step is: rewritten in place on a terminal, a new line every tenth
// elsewhere.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>

namespace generate {

class Progress {
 public:
  Progress(std::string label, std::size_t total, const char* unit = "tokens");
  void update(std::size_t done);  // the last update, with done == total, ends the line

 private:
  using Clock = std::chrono::steady_clock;
  bool due(std::size_t done) const;

  std::string label_;
  const char* unit_;
  std::size_t total_;
  std::size_t shown_ = 0;
  Clock::time_point start_ = Clock::now();
  Clock::time_point last_ = start_;
  bool terminal_;
};

}  // namespace generate
