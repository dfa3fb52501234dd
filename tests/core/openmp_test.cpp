#include "zeromerge/core/openmp.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <cstddef>
#include <vector>

namespace zeromerge {
namespace {

TEST(OpenMpExecutor, RunsEachIndexOnce) {
#if defined(_OPENMP)
  for (const int threads : {0, 1, 2, 3}) {
    const Executor executor = openmp(threads);
    for (const std::size_t count : {0u, 1u, 2u, 100u}) {
      std::vector<std::atomic<int>> runs(count);
      for (int loop = 0; loop < 20; ++loop) executor(count, [&](std::size_t i) { ++runs.at(i); });
      for (std::size_t i = 0; i < count; ++i) ASSERT_EQ(runs[i].load(), 20) << i << " of " << count;
    }
  }
#else
  GTEST_SKIP() << "this compiler has no OpenMP, or its runtime hides what it does from the thread sanitizer";
#endif
}

}  // namespace
}  // namespace zeromerge
