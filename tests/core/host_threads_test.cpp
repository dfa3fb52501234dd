#include "zeromerge/core/host_threads.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <barrier>
#include <cstddef>
#include <stdexcept>
#include <thread>
#include <vector>

namespace zeromerge {
namespace {

// An engine: its threads run operators one after another and meet at a barrier.
template <class Operator>
void engine(std::size_t threads, const Operator& run) {
  std::barrier<> meeting(static_cast<std::ptrdiff_t>(threads));
  const auto barrier = [&] { meeting.arrive_and_wait(); };
  std::vector<std::thread> others;
  for (std::size_t i = 1; i < threads; ++i) others.emplace_back([&, i] { run(i, threads, barrier); });
  run(0, threads, barrier);
  for (auto& other : others) other.join();
}

TEST(HostThreads, LoopsOfAJobRunOnceEachOnTheThreadsThatCall) {
  for (const std::size_t threads : {1u, 2u, 3u, 5u}) {
    SCOPED_TRACE(threads);
    HostThreads team;
    const Executor executor = team.executor();
    std::vector<std::atomic<int>> runs(100);
    int jobs = 0;
    engine(threads, [&](std::size_t ith, std::size_t nth, const auto& barrier) {
      for (int op = 0; op < 200; ++op) {
        team.run(ith, nth, barrier, [&] {
          ++jobs;
          for (const std::size_t count : {0u, 1u, 7u, 100u})
            executor(count, [&](std::size_t i) { ++runs[i]; });
        });
        barrier();
      }
    });
    EXPECT_EQ(jobs, 200);
    EXPECT_EQ(runs[0].load(), 600);
    EXPECT_EQ(runs[5].load(), 400);
    EXPECT_EQ(runs[50].load(), 200);
  }
}

TEST(HostThreads, AllThreadsTakePart) {
  HostThreads team;
  const Executor executor = team.executor();
  std::atomic<int> inside{0};
  engine(3, [&](std::size_t ith, std::size_t nth, const auto& barrier) {
    team.run(ith, nth, barrier, [&] {
      executor(3, [&](std::size_t) {
        ++inside;
        while (inside.load() < 3) std::this_thread::yield();
      });
    });
  });
  EXPECT_EQ(inside.load(), 3);
}

TEST(HostThreads, OutsideARunTheCallerDoesEverything) {
  HostThreads team;
  const auto caller = std::this_thread::get_id();
  std::size_t runs = 0;
  team.executor()(9, [&](std::size_t) { runs += std::this_thread::get_id() == caller ? 1 : 0; });
  EXPECT_EQ(runs, 9u);
}

TEST(HostThreads, AJobThatThrowsLetsTheOthersGo) {
  HostThreads team;
  std::atomic<int> caught{0};
  engine(3, [&](std::size_t ith, std::size_t nth, const auto& barrier) {
    try {
      team.run(ith, nth, barrier, [] { throw std::runtime_error("no"); });
    } catch (const std::runtime_error&) {
      ++caught;
    }
  });
  EXPECT_EQ(caught.load(), 1);
}

}  // namespace
}  // namespace zeromerge
