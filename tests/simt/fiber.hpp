// A fiber: a function with a stack of its own that can be left in the middle and gone on with later, on one
// thread of the system. The threads of an emulated block are fibers.
#pragma once

#include <sys/mman.h>
#include <ucontext.h>

#include <cstddef>
#include <cstdint>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#define ZEROMERGE_FIBER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ZEROMERGE_FIBER_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define ZEROMERGE_FIBER_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define ZEROMERGE_FIBER_TSAN 1
#endif
#endif
#if defined(ZEROMERGE_FIBER_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(ZEROMERGE_FIBER_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

namespace zeromerge::simt {

// swapcontext() asks the kernel for the signal mask at each switch, which takes longer than what a fiber does
// between two barriers. Where the compiler can jump between stacks itself, only the first entry goes that
// way; Clang's thread sanitizer does not survive it.
#if defined(__x86_64__) && !(defined(__clang__) && defined(ZEROMERGE_FIBER_TSAN))
#define ZEROMERGE_FIBER_JUMPS 1
#endif

class Fiber {
 public:
  using Body = void (*)(void*);

  // `body` is entered at the first resume() and must never return: it suspends when it has nothing to do.
  Fiber(Body body, void* argument) : body_(body), argument_(argument) {
    void* block = mmap(nullptr, kStack + kGuard, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (block == MAP_FAILED) throw std::bad_alloc();
    stack_ = static_cast<std::byte*>(block);
    mprotect(stack_, kGuard, PROT_NONE);
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack_ + kGuard;
    context_.uc_stack.ss_size = kStack;
    context_.uc_link = nullptr;
    const auto self = reinterpret_cast<std::uintptr_t>(this);
    makecontext(&context_, reinterpret_cast<void (*)()>(&Fiber::enter), 2, static_cast<unsigned>(self >> 32),
                static_cast<unsigned>(self));
#if defined(ZEROMERGE_FIBER_TSAN)
    tsan_fiber_ = __tsan_create_fiber(0);
#endif
  }
  ~Fiber() {
#if defined(ZEROMERGE_FIBER_TSAN)
    __tsan_destroy_fiber(tsan_fiber_);
#endif
#if defined(ZEROMERGE_FIBER_ASAN)
    __asan_unpoison_memory_region(stack_ + kGuard, kStack);
#endif
    munmap(stack_, kStack + kGuard);
  }
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Runs the body from where it was suspended until it suspends again.
  void resume() {
#if defined(ZEROMERGE_FIBER_ASAN)
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, stack_ + kGuard, kStack);
#endif
#if defined(ZEROMERGE_FIBER_TSAN)
    tsan_caller_ = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(tsan_fiber_, 0);
#endif
    switch_in();
#if defined(ZEROMERGE_FIBER_ASAN)
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
  }

  // Called on the fiber: back to whoever resumed it.
  void suspend() {
#if defined(ZEROMERGE_FIBER_ASAN)
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, caller_stack_, caller_size_);
#endif
#if defined(ZEROMERGE_FIBER_TSAN)
    __tsan_switch_to_fiber(tsan_caller_, 0);
#endif
    switch_out();
#if defined(ZEROMERGE_FIBER_ASAN)
    __sanitizer_finish_switch_fiber(fake, &caller_stack_, &caller_size_);
#endif
  }

 private:
#if defined(ZEROMERGE_FIBER_ASAN) || defined(ZEROMERGE_FIBER_TSAN)
  static constexpr std::size_t kStack = 512 << 10;
#else
  static constexpr std::size_t kStack = 256 << 10;
#endif
  static constexpr std::size_t kGuard = 64 << 10;  // a multiple of every page size

  static void enter(unsigned high, unsigned low) {
    auto* self = reinterpret_cast<Fiber*>((static_cast<std::uintptr_t>(high) << 32) | low);
#if defined(ZEROMERGE_FIBER_ASAN)
    __sanitizer_finish_switch_fiber(nullptr, &self->caller_stack_, &self->caller_size_);
#endif
    self->body_(self->argument_);
    __builtin_trap();
  }

#if defined(ZEROMERGE_FIBER_JUMPS)
  [[gnu::noinline, gnu::no_sanitize_address, gnu::no_sanitize_thread]] void switch_in() {
    if (__builtin_setjmp(caller_jump_) != 0) return;
    go();
  }
  [[gnu::noinline, gnu::no_sanitize_address, gnu::no_sanitize_thread]] void go() {
    if (started_) __builtin_longjmp(jump_, 1);
    started_ = true;
    setcontext(&context_);
  }
  [[gnu::noinline, gnu::no_sanitize_address, gnu::no_sanitize_thread]] void switch_out() {
    if (__builtin_setjmp(jump_) != 0) return;
    leave();
  }
  [[gnu::noinline, gnu::no_sanitize_address, gnu::no_sanitize_thread]] void leave() {
    __builtin_longjmp(caller_jump_, 1);
  }

  void* jump_[5] = {};
  void* caller_jump_[5] = {};
  bool started_ = false;
#else
  void switch_in() { swapcontext(&caller_, &context_); }
  void switch_out() { swapcontext(&context_, &caller_); }
  ucontext_t caller_ = {};
#endif

  Body body_;
  void* argument_;
  std::byte* stack_ = nullptr;
  ucontext_t context_ = {};
#if defined(ZEROMERGE_FIBER_ASAN)
  const void* caller_stack_ = nullptr;
  std::size_t caller_size_ = 0;
#endif
#if defined(ZEROMERGE_FIBER_TSAN)
  void* tsan_fiber_ = nullptr;
  void* tsan_caller_ = nullptr;
#endif
};

}  // namespace zeromerge::simt
