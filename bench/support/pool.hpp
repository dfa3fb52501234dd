// One pool for each number of threads, for all contenders of a process.
#pragma once

#include "zeromerge/core/parallel.hpp"

namespace bench {

inline const zeromerge::Executor& executor_of(std::size_t threads) {
  static const zeromerge::Executor one = zeromerge::serial();
  static const zeromerge::Executor two = zeromerge::threads(2);
  static const zeromerge::Executor four = zeromerge::threads(4);
  return threads == 1 ? one : threads == 2 ? two : four;
}

}  // namespace bench
