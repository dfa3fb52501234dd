// One loop after another, each shared by a thread that starts it and by helpers. A loop of one layer's decode
// step takes 50 to 500 us and waking a thread several, so who waits does so awake at first. Nobody waits for
// a helper that is not there yet: it misses the loop. On a busy core that would last a slice of the
// scheduler's, some milliseconds.
//
// One word, the gate, says everything: [generation | open | end | helpers inside]. A loop opens it under a
// new generation, helpers enter by raising the count, the starter closes it when no index is left and waits
// until nobody is inside. What describes the loop is written only while the gate is closed and nobody inside.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

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

namespace detail {

// Cores this process may run on: fewer than the machine has under taskset or in a container.
inline std::size_t usable_cores() noexcept {
#if defined(__linux__) && defined(CPU_COUNT)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0)
    return static_cast<std::size_t>(std::max(1, CPU_COUNT(&set)));
#endif
  return std::max<std::size_t>(1, std::thread::hardware_concurrency());
}

}  // namespace detail

class SharedLoop {
 public:
  explicit SharedLoop(std::size_t threads) noexcept { expect(threads); }
  SharedLoop(const SharedLoop&) = delete;
  SharedLoop& operator=(const SharedLoop&) = delete;

  // That so many threads will share the loops. With more than the cores this process may use nobody waits
  // awake: it would be at the cost of those who work. Only while no thread is in any other call.
  void expect(std::size_t threads) noexcept { awake_ = threads <= detail::usable_cores(); }

  // Runs the loop on this thread and on those in help(). While one loop runs, any other (started by a body or
  // by another thread) runs on its starter's thread alone.
  void run(std::size_t count, const LoopBody& body) {
    if (running_.exchange(true, std::memory_order_acquire)) {
      for (std::size_t i = 0; i < count; ++i) body(i);
      return;
    }
    body_ = &body;
    count_ = count;
    next_.store(0, std::memory_order_relaxed);
    open(kOpen);
    wake(count - 1);
    work(count, body);
    gate_.fetch_and(~kOpen);
    wait_until_left();
    running_.store(false, std::memory_order_release);
  }

  // Lets all `helpers` go: their help() returns false. They no longer touch this object when it returns.
  void end(std::size_t helpers) {
    open(kEnd | helpers);
    wake(helpers);
    wait_until_left();
    const std::lock_guard lock(mutex_);  // the last of them has let go of it
  }

  // The generation that a helper has `seen` when it begins.
  std::uint64_t loops() const noexcept { return gate_.load() & kGeneration; }

  // Waits for a loop after `seen` and takes part in it; false if it was the end.
  bool help(std::uint64_t& seen) {
    std::uint64_t gate = wait_for_loop(seen);
    if ((gate & kEnd) != 0) {
      const std::lock_guard lock(mutex_);
      if ((gate_.fetch_sub(1) & kInside) == 1) left_.notify_one();
      return false;
    }
    if (!gate_.compare_exchange_strong(gate, gate + 1)) return true;  // closed, or another came in
    seen = gate & kGeneration;
    work(count_, *body_);
    if ((gate_.fetch_sub(1) & kInside) == 1 && starter_sleeps_.load()) {
      const std::lock_guard lock(mutex_);
      left_.notify_one();
    }
    return true;
  }

 private:
  static constexpr std::uint64_t kInside = 0xffff;
  static constexpr std::uint64_t kEnd = 1u << 16;
  static constexpr std::uint64_t kOpen = 1u << 17;
  static constexpr std::uint64_t kNextGeneration = 1u << 18;
  static constexpr std::uint64_t kGeneration = ~(kNextGeneration - 1);

  // Nobody is inside and no helper enters a closed gate, so the word is the starter's to write.
  void open(std::uint64_t how) { gate_.store((loops() + kNextGeneration) | how); }

  void work(std::size_t count, const LoopBody& body) {
    for (std::size_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < count;) body(i);
  }

  // A sleeper counts itself before it looks at the gate a last time, and the starter opens the gate before it
  // looks at their count: both sequentially consistent, so that one of the two sees the other.
  void wake(std::size_t most) {
    const std::size_t sleeping = sleepers_.load();
    if (sleeping == 0) return;
    {
      const std::lock_guard lock(mutex_);  // who has counted itself sleeps by now, or has seen the gate
    }
    if (sleeping <= most) return opened_.notify_all();
    for (std::size_t i = 0; i < most; ++i) opened_.notify_one();
  }

  std::uint64_t wait_for_loop(std::uint64_t seen) {
    std::uint64_t gate = 0;
    const auto called = [&] {
      gate = gate_.load();
      return (gate & (kOpen | kEnd)) != 0 && (gate & kGeneration) != seen;
    };
    if (comes_true(called)) return gate;
    std::unique_lock lock(mutex_);
    sleepers_.fetch_add(1);
    opened_.wait(lock, called);
    sleepers_.fetch_sub(1);
    return gate;
  }

  void wait_until_left() {
    const auto left = [&] { return (gate_.load() & kInside) == 0; };
    if (comes_true(left)) return;
    std::unique_lock lock(mutex_);
    starter_sleeps_.store(true);
    left_.wait(lock, left);
    starter_sleeps_.store(false);
  }

  // Whether the condition comes true while waiting awake. By the clock: a pause takes 10 to 140 cycles.
  template <class Condition>
  bool comes_true(const Condition& condition) const {
    using Clock = std::chrono::steady_clock;
    constexpr auto kAwake = std::chrono::microseconds(30);
    if (condition()) return true;
    if (!awake_) {
      // Giving the core away a few times is cheaper than sleeping when loops follow one another.
      for (int i = 0; i < 4; ++i) {
        std::this_thread::yield();
        if (condition()) return true;
      }
      return false;
    }
    for (const auto until = Clock::now() + kAwake; Clock::now() < until;)
      for (int i = 0; i < 16; ++i) {
        pause();
        if (condition()) return true;
      }
    return false;
  }

  static void pause() noexcept {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  bool awake_ = false;
  const LoopBody* body_ = nullptr;
  std::size_t count_ = 0;
  std::atomic<bool> running_{false};
  // Lines of their own: every index goes through one, every waiting thread reads the other.
  alignas(64) std::atomic<std::size_t> next_{0};
  alignas(64) std::atomic<std::uint64_t> gate_{0};
  alignas(64) std::mutex mutex_;
  std::condition_variable opened_;
  std::condition_variable left_;
  std::atomic<std::size_t> sleepers_{0};
  std::atomic<bool> starter_sleeps_{false};
};

}  // namespace zeromerge
