#include "generate/progress.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

namespace generate {

Progress::Progress(std::string label, std::size_t total, const char* unit)
    : label_(std::move(label)),
      unit_(unit),
      total_(std::max<std::size_t>(total, 1)),
      terminal_(isatty(STDERR_FILENO) == 1) {}

bool Progress::due(std::size_t done) const {
  if (done >= total_) return true;
  if (terminal_) return Clock::now() - last_ > std::chrono::milliseconds(100);
  return done * 10 / total_ > shown_ * 10 / total_ && Clock::now() - last_ > std::chrono::seconds(1);
}

void Progress::update(std::size_t done) {
  if (!due(done)) return;
  last_ = Clock::now();
  shown_ = done;
  const double seconds = std::max(std::chrono::duration<double>(last_ - start_).count(), 1e-9);
  std::fprintf(stderr, "%s%s: %zu / %zu %s, %.1f %s/s%s", terminal_ ? "\r" : "", label_.c_str(), done, total_,
               unit_, static_cast<double>(done) / seconds, unit_, terminal_ ? "   " : "");
  if (!terminal_ || done >= total_) std::fputc('\n', stderr);
  std::fflush(stderr);
}

}  // namespace generate
