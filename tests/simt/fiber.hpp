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
// between two barriers. So where we know the machine we change stacks ourselves: what a call must preserve
// goes onto the stack that is left, its pointer into *from, and the other way round for `to`. It is written
// outside any function because no compiler can then assume anything about which registers it leaves alone.
#if defined(__x86_64__)
#define ZEROMERGE_FIBER_SWITCH 1
extern "C" void zeromerge_simt_switch(void** from, void* to);
extern "C" void zeromerge_simt_first(void);  // calls r12 with rbx
asm(R"(
  .pushsection .text.zeromerge_simt_switch, "axG", @progbits, zeromerge_simt_switch, comdat
  .weak zeromerge_simt_switch
  .type zeromerge_simt_switch, @function
zeromerge_simt_switch:
  .cfi_startproc
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .cfi_endproc
  .size zeromerge_simt_switch, .-zeromerge_simt_switch
  .weak zeromerge_simt_first
  .type zeromerge_simt_first, @function
zeromerge_simt_first:
  .cfi_startproc
  .cfi_undefined rip
  movq %rbx, %rdi
  callq *%r12
  ud2
  .cfi_endproc
  .size zeromerge_simt_first, .-zeromerge_simt_first
  .popsection
)");
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
    prepare();
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

  static void enter(Fiber* self) {
#if defined(ZEROMERGE_FIBER_ASAN)
    __sanitizer_finish_switch_fiber(nullptr, &self->caller_stack_, &self->caller_size_);
#endif
    self->body_(self->argument_);
    __builtin_trap();
  }

#if defined(ZEROMERGE_FIBER_SWITCH)
  // The stack looks as if the fiber had been left right before its first instruction.
  void prepare() {
    auto* top = reinterpret_cast<void**>(stack_ + kGuard + kStack);
    *--top = nullptr;  // two words, so that the entry finds the stack aligned
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(&zeromerge_simt_first);
    *--top = nullptr;                                 // rbp: the end of the chain of frames
    *--top = this;                                    // rbx
    *--top = reinterpret_cast<void*>(&Fiber::enter);  // r12
    for (int i = 0; i < 3; ++i) *--top = nullptr;     // r13, r14, r15
    own_ = top;
  }
  void switch_in() { zeromerge_simt_switch(&caller_, own_); }
  void switch_out() { zeromerge_simt_switch(&own_, caller_); }
  void* own_ = nullptr;  // a stack's pointer while the other one runs
  void* caller_ = nullptr;
#else
  void prepare() {
    getcontext(&own_);
    own_.uc_stack.ss_sp = stack_ + kGuard;
    own_.uc_stack.ss_size = kStack;
    own_.uc_link = nullptr;
    const auto self = reinterpret_cast<std::uintptr_t>(this);
    makecontext(&own_, reinterpret_cast<void (*)()>(&Fiber::enter_halves), 2,
                static_cast<unsigned>(self >> 32), static_cast<unsigned>(self));
  }
  static void enter_halves(unsigned high, unsigned low) {
    enter(reinterpret_cast<Fiber*>((static_cast<std::uintptr_t>(high) << 32) | low));
  }
  void switch_in() { swapcontext(&caller_, &own_); }
  void switch_out() { swapcontext(&own_, &caller_); }
  ucontext_t own_ = {};
  ucontext_t caller_ = {};
#endif

  Body body_;
  void* argument_;
  std::byte* stack_ = nullptr;
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
