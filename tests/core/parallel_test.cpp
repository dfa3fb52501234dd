#include "zeromerge/core/parallel.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <ctime>
#include <functional>
#include <thread>
#include <vector>

namespace zeromerge {
namespace {

void expect_each_index_once(const Executor& executor, std::size_t count) {
  std::vector<std::atomic<int>> runs(count);
  executor(count, [&](std::size_t i) { ++runs.at(i); });
  for (std::size_t i = 0; i < count; ++i) ASSERT_EQ(runs[i].load(), 1) << i << " of " << count;
}

TEST(Parallel, SerialRunsEachIndexOnceInOrder) {
  std::vector<std::size_t> seen;
  serial()(5, [&](std::size_t i) { seen.push_back(i); });
  EXPECT_EQ(seen, (std::vector<std::size_t>{0, 1, 2, 3, 4}));
  serial()(0, [&](std::size_t) { FAIL(); });
}

TEST(Parallel, APoolRunsEachIndexOnceLoopAfterLoop) {
  for (const std::size_t workers : {0u, 1u, 2u, 3u, 8u}) {
    SCOPED_TRACE(workers);
    const Executor executor = threads(workers);
    for (int loop = 0; loop < 200; ++loop)
      expect_each_index_once(executor, static_cast<std::size_t>(loop % 40));
    expect_each_index_once(executor, 10'000);
  }
}

TEST(Parallel, WhatABodyWroteIsThereAfterTheLoop) {
  const Executor executor = threads(4);
  std::vector<std::size_t> squares(1000);
  for (std::size_t round = 1; round < 50; ++round) {
    executor(squares.size(), [&](std::size_t i) { squares[i] = i * round; });
    for (std::size_t i = 0; i < squares.size(); ++i) ASSERT_EQ(squares[i], i * round);
  }
}

TEST(Parallel, APoolUsesItsThreadsTogether) {
  ThreadPool pool(3);
  std::atomic<int> inside{0};
  // Each index waits for the other two: one thread alone would never finish.
  pool(3, [&](std::size_t) {
    ++inside;
    while (inside.load() < 3) std::this_thread::yield();
  });
  EXPECT_EQ(inside.load(), 3);
}

TEST(Parallel, APoolOfOneStartsNoThread) {
  ThreadPool pool(1);
  pool(4,
       [caller = std::this_thread::get_id()](std::size_t) { EXPECT_EQ(std::this_thread::get_id(), caller); });
}

TEST(Parallel, APoolWakesFromAnyPause) {
  const Executor executor = threads(2);
  for (const int microseconds : {0, 5, 20, 40, 200, 5000, 0, 100}) {
    std::this_thread::sleep_for(std::chrono::microseconds(microseconds));
    for (int loop = 0; loop < 20; ++loop) expect_each_index_once(executor, 7);
  }
}

TEST(Parallel, PoolsComeAndGo) {
  for (int i = 0; i < 100; ++i) {
    ThreadPool pool(3);
    if (i % 2 == 0) expect_each_index_once([&](std::size_t n, LoopBody body) { pool(n, body); }, 5);
  }
}

TEST(Parallel, ALoopInsideABodyRunsOnThatThread) {
  ThreadPool pool(3);
  std::vector<std::atomic<int>> runs(40);
  for (int loop = 0; loop < 50; ++loop)
    pool(8, [&](std::size_t outer) {
      const auto here = std::this_thread::get_id();
      pool(5, [&](std::size_t inner) {
        EXPECT_EQ(std::this_thread::get_id(), here);
        ++runs[outer * 5 + inner];
      });
    });
  for (const auto& count : runs) EXPECT_EQ(count.load(), 50);
}

TEST(Parallel, SeveralThreadsMayCallOnePool) {
  ThreadPool pool(3);
  std::atomic<int> runs{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 3; ++caller)
    callers.emplace_back([&] {
      for (int loop = 0; loop < 500; ++loop) pool(6, [&](std::size_t) { ++runs; });
    });
  for (auto& caller : callers) caller.join();
  EXPECT_EQ(runs.load(), 3 * 500 * 6);
}

TEST(Parallel, APoolIsUsedThousandsOfTimesWithMoreThreadsThanCores) {
  ThreadPool pool(std::thread::hardware_concurrency() + 3);
  std::atomic<std::size_t> runs{0};
  std::size_t expected = 0;
  for (std::size_t loop = 0; loop < 5000; ++loop) {
    pool(2 + loop % 9, [&](std::size_t) { ++runs; });
    expected += 2 + loop % 9;
  }
  EXPECT_EQ(runs.load(), expected);
}

// It waits awake for microseconds, not for as long as it is idle.
TEST(Parallel, AnIdlePoolSleeps) {
  const auto spent = [] { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; };
  ThreadPool pool(2);
  expect_each_index_once(std::ref(pool), 100);
  const double before = spent();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_LT(spent() - before, 0.05);
  expect_each_index_once(std::ref(pool), 100);
}

TEST(Parallel, CopiesOfAnExecutorShareThePool) {
  Executor first = threads(2);
  const Executor second = first;
  first = serial();
  expect_each_index_once(second, 100);
}

}  // namespace
}  // namespace zeromerge
