// An executor on the threads of OpenMP, for programs that have them: two sets of threads that wait for each
// other awake take each other's cores. Compile with OpenMP (-fopenmp); not part of zeromerge.hpp.
#pragma once

#include <algorithm>
#include <cstddef>

#include "zeromerge/core/parallel.hpp"

namespace zeromerge {

#if defined(_OPENMP)

// Runs loops on at most so many threads of OpenMP's current team size; 0 and 1: on the calling one.
class OpenMp {
 public:
  explicit OpenMp(int threads) noexcept : threads_(threads) {}

  void operator()(std::size_t count, LoopBody body) const {
    const int threads =
        static_cast<int>(std::min<std::size_t>(count, static_cast<std::size_t>(std::max(threads_, 1))));
    if (threads <= 1) {
      for (std::size_t i = 0; i < count; ++i) body(i);
      return;
    }
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (std::size_t i = 0; i < count; ++i) body(i);
  }

 private:
  int threads_;
};

inline Executor openmp(int threads) { return OpenMp(threads); }

#else

// Says what is missing where it is used.
template <class Threads>
Executor openmp(Threads) {
  static_assert(sizeof(Threads) == 0,
                "zeromerge::openmp() needs a translation unit compiled with OpenMP (-fopenmp)");
  return {};
}

#endif

}  // namespace zeromerge
