// One loop after another, each shared by a thread that starts it and a number of helpers.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <thread>

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

// Who waits does so awake at first, unless there are more threads than the machine has cores: then that would
// keep others from the work that is waited for.
class SharedLoop {
 public:
  explicit SharedLoop(std::size_t threads) noexcept
      : awake_(threads <= std::thread::hardware_concurrency()) {}
  SharedLoop(const SharedLoop&) = delete;
  SharedLoop& operator=(const SharedLoop&) = delete;

  // Runs the loop on this thread and on exactly `helpers` others, which are in help() or will be.
  void run(std::size_t count, const LoopBody& body, std::size_t helpers) {
    publish(count, &body, helpers);
    work(count, body);
    wait_for_helpers();
  }

  // Lets as many helpers go: their help() returns false.
  void end(std::size_t helpers) {
    publish(0, nullptr, helpers);
    wait_for_helpers();
  }

  // The number of loops so far; what a helper has `seen` when it begins.
  std::size_t loops() const noexcept { return generation_.load(std::memory_order_acquire); }

  // Waits for the loop after `seen` and takes part in it; false if it was the end.
  bool help(std::size_t& seen) {
    wait_while(generation_, seen);
    ++seen;
    const LoopBody* body = body_;
    if (body != nullptr) work(count_, *body);
    if (busy_.fetch_sub(1, std::memory_order_acq_rel) == 1) busy_.notify_one();
    return body != nullptr;
  }

 private:
  void publish(std::size_t count, const LoopBody* body, std::size_t helpers) {
    body_ = body;
    count_ = count;
    next_.store(0, std::memory_order_relaxed);
    busy_.store(helpers, std::memory_order_relaxed);
    generation_.fetch_add(1, std::memory_order_release);
    generation_.notify_all();
  }

  void work(std::size_t count, const LoopBody& body) {
    for (std::size_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < count;) body(i);
  }

  void wait_for_helpers() {
    for (std::size_t left; (left = busy_.load(std::memory_order_acquire)) != 0;) wait_while(busy_, left);
  }

  void wait_while(const std::atomic<std::size_t>& x, std::size_t value) const {
    using Clock = std::chrono::steady_clock;
    constexpr auto kAwake = std::chrono::microseconds(30);
    const auto changed = [&] { return x.load(std::memory_order_acquire) != value; };
    if (awake_)
      for (const auto until = Clock::now() + kAwake; Clock::now() < until;)
        for (int i = 0; i < 16; ++i) {
          if (changed()) return;
          pause();
        }
    while (!changed()) x.wait(value, std::memory_order_acquire);
  }

  static void pause() noexcept {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  const bool awake_;
  const LoopBody* body_ = nullptr;  // null: the end
  std::size_t count_ = 0;
  std::atomic<std::size_t> next_{0};
  std::atomic<std::size_t> busy_{0};
  std::atomic<std::size_t> generation_{0};
};

}  // namespace zeromerge
