// Threads come from the caller. An executor is anything callable as executor(count, body) that runs body(0)
// .. body(count - 1), each once, in any order, on any threads, and returns when all are done. Results never
// depend on which executor ran them. Here: the calling thread, and a pool; openmp.hpp and host_threads.hpp
// adapt what a program has.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "zeromerge/core/shared_loop.hpp"

namespace zeromerge {

// What a cache asks of an executor.
template <class E>
concept ParallelLoop = requires(E& executor, std::size_t count, LoopBody body) {
  executor(count, body);
};

// Any of them.
using Executor = std::function<void(std::size_t, LoopBody)>;

// The calling thread does everything; the default.
inline Executor serial() {
  return [](std::size_t count, LoopBody body) {
    for (std::size_t i = 0; i < count; ++i) body(i);
  };
}

// A fixed number of threads. Between loops they wait for the next one awake for some microseconds, since a
// decode step is a loop per layer and waking costs as much as a small one, and asleep after that. The caller
// works too, so ThreadPool(1) starts none. While a loop runs, one that a body or another thread starts runs
// on its caller's thread alone.
class ThreadPool {
 public:
  explicit ThreadPool(std::size_t threads) : loop_(threads) {
    for (std::size_t i = 1; i < threads; ++i)
      workers_.emplace_back([this] {
        for (std::uint64_t seen = 0; loop_.help(seen);) {
        }
      });
  }
  ~ThreadPool() {
    loop_.end(workers_.size());
    for (auto& worker : workers_) worker.join();
  }
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  void operator()(std::size_t count, LoopBody body) {
    if (count > 1 && !workers_.empty()) return loop_.run(count, body);
    for (std::size_t i = 0; i < count; ++i) body(i);
  }

 private:
  SharedLoop loop_;
  std::vector<std::thread> workers_;
};

static_assert(ParallelLoop<Executor> && ParallelLoop<ThreadPool>);

// An executor over a pool that it shares.
inline Executor threads(std::size_t count) {
  auto pool = std::make_shared<ThreadPool>(count);
  return [pool](std::size_t n, LoopBody body) { (*pool)(n, body); };
}

}  // namespace zeromerge
