// Threads come from the caller. An executor is anything callable as executor(count, body) that runs body(0)
// .. body(count - 1), each once, in any order, on any threads, and returns when all are done. Results never
// depend on which executor ran them.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace zeromerge {

// A body that does not own its callable: two pointers, no allocation. Valid during the call it is passed to.
class LoopBody {
 public:
  template <class F>
  LoopBody(const F& f) noexcept  // NOLINT: implicit on purpose
      : object_(&f), call_([](const void* object, std::size_t i) { (*static_cast<const F*>(object))(i); }) {}
  void operator()(std::size_t i) const { call_(object_, i); }

 private:
  const void* object_;
  void (*call_)(const void*, std::size_t);
};

using Executor = std::function<void(std::size_t, LoopBody)>;

// The calling thread does everything; the default.
inline Executor serial() {
  return [](std::size_t count, LoopBody body) {
    for (std::size_t i = 0; i < count; ++i) body(i);
  };
}

// A fixed number of threads that sleep between loops. The caller works too, so ThreadPool(1) starts none.
// Not reentrant: one loop at a time.
class ThreadPool {
 public:
  explicit ThreadPool(std::size_t threads) {
    for (std::size_t i = 1; i < threads; ++i) workers_.emplace_back([this] { serve(); });
  }
  ~ThreadPool() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (auto& worker : workers_) worker.join();
  }
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  void operator()(std::size_t count, LoopBody body) {
    if (count <= 1 || workers_.empty()) {
      for (std::size_t i = 0; i < count; ++i) body(i);
      return;
    }
    {
      const std::lock_guard lock(mutex_);
      body_ = &body;
      count_ = count;
      next_.store(0, std::memory_order_relaxed);
      busy_ = workers_.size();
      ++generation_;
    }
    wake_.notify_all();
    work(body, count);
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return busy_ == 0; });
  }

 private:
  void work(const LoopBody& body, std::size_t count) {
    for (std::size_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < count;) body(i);
  }

  void serve() {
    std::size_t seen = 0;
    for (std::unique_lock lock(mutex_);;) {
      wake_.wait(lock, [&] { return stop_ || generation_ != seen; });
      if (stop_) return;
      seen = generation_;
      const LoopBody* body = body_;
      const std::size_t count = count_;
      lock.unlock();
      work(*body, count);
      lock.lock();
      if (--busy_ == 0) done_.notify_one();
    }
  }

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
  const LoopBody* body_ = nullptr;
  std::size_t count_ = 0;
  std::size_t busy_ = 0;
  std::size_t generation_ = 0;
  std::atomic<std::size_t> next_{0};
  bool stop_ = false;
};

// An executor over a pool that it shares.
inline Executor threads(std::size_t count) {
  auto pool = std::make_shared<ThreadPool>(count);
  return [pool](std::size_t n, LoopBody body) { (*pool)(n, body); };
}

}  // namespace zeromerge
