// A block of emulated threads: each is a fiber that runs until it has to wait for others, at a barrier or at
// a warp operation. A thread that finds a fault is never resumed, and the launch throws.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "simt/fault.hpp"
#include "simt/fiber.hpp"
#include "simt/memory.hpp"
#include "simt/shadow.hpp"

namespace zeromerge::simt {

struct Index {
  unsigned x = 0, y = 0, z = 0;
};

enum class WarpKind : std::uint8_t { sync, shuffle, vote, collective };

class Block {
 public:
  static constexpr unsigned kMostThreads = 1024;

  explicit Block(DeviceMemory& memory) : memory_(memory) {}

  // ---- called by a launch

  // Runs one block to its end, or throws Fault. `body(argument)` is the kernel with its arguments.
  void run(Index grid, Index block, unsigned threads, std::size_t shared_bytes, std::uint32_t launch_first,
           void (*body)(const void*), const void* argument) {
    begin(grid, block, threads, shared_bytes, launch_first);
    body_ = body;
    argument_ = argument;
    Block* const outer = std::exchange(current_, this);
    const bool reversed = reversed_;
    while (live_ > 0 && !faulty_) {
      bool moved = false;
      for (unsigned w = 0; w < warps_.size() && !faulty_; ++w)
        moved |= run_warp(reversed ? static_cast<unsigned>(warps_.size()) - 1 - w : w);
      if (!moved && !faulty_) report_deadlock();
    }
    current_ = outer;
    if (faulty_) {
      abandon();
      throw Fault(report_.str());
    }
  }
  // Threads in descending order: what works only in one order is wrong.
  void set_reversed(bool reversed) { reversed_ = reversed; }
  static std::uint32_t next_interval() { return ++interval_; }
  static std::uint32_t last_interval() { return interval_; }

  // ---- called by the threads

  static Block& current() {
    if (current_ == nullptr) throw Fault("device code was called on the host");
    return *current_;
  }
  static bool inside() { return current_ != nullptr; }

  Index grid() const { return grid_; }
  Index block() const { return block_; }
  unsigned threads() const { return threads_; }
  unsigned thread() const { return running_; }
  std::size_t shared_bytes() const { return shared_.size(); }
  std::byte* shared() { return shared_.data(); }

  void sync_block(Place place) {
    Thread& me = self();
    me.place = place;
    if (at_barrier_ == 0) {
      barrier_place_ = place;
    } else if (!same(barrier_place_, place)) {
      fault("divergent barrier: this thread waits at ", At{place}, ", others wait at ", At{barrier_place_});
    }
    if (left_ > 0) fault("divergent barrier: ", left_, " threads left the kernel without this barrier");
    ++at_barrier_;
    if (at_barrier_ < threads_) return wait(State::barrier);
    at_barrier_ = 0;
    interval_now_ = next_interval();
    for (unsigned t = 0; t < threads_; ++t) {
      thread_[t]->state = State::ready;
      thread_[t]->clock = 0;
      thread_[t]->seen.fill(0);
    }
  }

  // All lanes of `mask` meet; `value` of each is to be seen by the others in values().
  const std::array<std::uint64_t, kWarp>& meet(WarpKind kind, std::uint32_t mask, std::uint64_t value,
                                               Place place) {
    Thread& me = self();
    me.place = place;
    Warp& warp = warps_[running_ / kWarp];
    const unsigned lane = running_ % kWarp;
    if ((mask >> lane & 1u) == 0) fault("the mask ", Hex{mask}, " does not name lane ", lane, " that calls");
    const std::uint32_t gone = mask & ~warp.live;
    if (gone != 0) fault("the mask ", Hex{mask}, " names lanes that are not there (", Hex{gone}, ")");
    Meeting& meeting = join(warp, kind, mask, place);
    meeting.arrived |= 1u << lane;
    meeting.values[lane] = value;
    me.meeting = &meeting;
    if (meeting.arrived != mask) {
      wait(State::warp);
    } else {
      if (kind == WarpKind::sync) order(warp, mask);
      meeting.open = false;
      meeting.to_leave = static_cast<unsigned>(__builtin_popcount(mask));
      const unsigned first = running_ / kWarp * kWarp;
      for (unsigned l = 0; l < kWarp; ++l)
        if (mask >> l & 1u) thread_[first + l]->state = State::ready;
    }
    --meeting.to_leave;  // a meeting is used again only when every lane has read its values
    return meeting.values;
  }

  // Checks an access to `bytes` bytes of shared memory.
  void access_shared(const void* pointer, std::size_t bytes, bool write, bool atomic = false) {
    const auto offset = static_cast<std::size_t>(static_cast<const std::byte*>(pointer) - shared_.data());
    check(shared_shadow_.data() + offset, bytes, write, atomic, true, offset);
  }
  // The same of global memory; returns where the bytes lie.
  std::byte* access_global(const void* pointer, std::size_t bytes, bool write, bool atomic = false) {
    const DeviceMemory::Found found = find_global(pointer, bytes, write);
    check(found.shadow, bytes, write, atomic, false, 0);
    return found.data;
  }
  void check_alignment(const void* pointer, std::size_t bytes, const char* what) {
    if (reinterpret_cast<std::uintptr_t>(pointer) % bytes != 0)
      fault(what, " of ", bytes, " bytes at an address that is not a multiple of ", bytes);
  }

  // 16 bytes (or zeros) to shared memory, there only after copy_wait(): until then the place holds ones.
  void copy_async(void* to, const void* from, bool zeros) {
    Copy copy{static_cast<std::byte*>(to), {}, self().committed};
    check_alignment(to, 16, "asynchronous copy");
    if (!zeros) {
      check_alignment(from, 16, "asynchronous copy");
      std::memcpy(copy.bytes.data(), access_global(from, 16, false), 16);
    }
    const auto offset = static_cast<std::size_t>(copy.to - shared_.data());
    pending_write_ = true;
    check(shared_shadow_.data() + offset, 16, true, false, true, offset);
    pending_write_ = false;
    std::memset(to, 0xff, 16);
    self().copies.push_back(copy);
  }
  void copy_commit() { ++self().committed; }
  void copy_wait(unsigned groups) {
    Thread& me = self();
    std::size_t kept = 0;
    for (const Copy& copy : me.copies) {
      if (copy.group + groups >= me.committed) {
        me.copies[kept++] = copy;
        continue;
      }
      std::memcpy(copy.to, copy.bytes.data(), 16);
      Shadow* shadow = shared_shadow_.data() + (copy.to - shared_.data());
      for (unsigned i = 0; i < 16; ++i) shadow[i].write(now(false));
    }
    me.copies.resize(kept);
  }

  // Tells what is wrong and ends this thread for good.
  template <class... Parts>
  [[noreturn]] void fault(const Parts&... parts) {
    write_report(parts...);
    fiber_[running_]->suspend();
    __builtin_trap();
  }

  struct Hex {
    std::uint32_t value;
    friend std::ostream& operator<<(std::ostream& out, Hex h) {
      char text[16];
      std::snprintf(text, sizeof text, "0x%08x", h.value);
      return out << text;
    }
  };

 private:
  enum class State : std::uint8_t { ready, barrier, warp, left };
  struct Copy {
    std::byte* to;
    std::array<std::byte, 16> bytes;
    unsigned group;
  };
  struct Meeting {
    bool open = false;
    WarpKind kind = WarpKind::sync;
    std::uint32_t mask = 0;
    std::uint32_t arrived = 0;
    unsigned to_leave = 0;
    Place place;
    std::array<std::uint64_t, kWarp> values = {};
  };
  struct Thread {
    State state = State::ready;
    std::uint32_t clock = 0;
    std::array<std::uint32_t, kWarp> seen = {};
    Place place;  // of its last barrier or warp operation
    Meeting* meeting = nullptr;
    unsigned committed = 0;  // groups of asynchronous copies
    std::vector<Copy> copies;
  };
  struct Warp {
    std::uint32_t live = 0;
    std::vector<std::unique_ptr<Meeting>> meetings;  // lanes may meet in several disjoint masks at once
  };

  void begin(Index grid, Index block, unsigned threads, std::size_t shared_bytes,
             std::uint32_t launch_first) {
    grid_ = grid;
    block_ = block;
    threads_ = live_ = threads;
    left_ = at_barrier_ = 0;
    launch_first_ = launch_first;
    block_first_ = interval_now_ = next_interval();
    faulty_ = false;
    report_.str({});
    // Words of 16 bytes, for copies are aligned; the shadow needs no reset, for it holds intervals.
    if (shared_.size() != shared_bytes) {
      shared_storage_.reset(new (std::align_val_t{128}) std::byte[shared_bytes + 1]);
      shared_ = {shared_storage_.get(), shared_bytes};
      shared_shadow_.assign(shared_bytes, {});
    }
    if (shared_bytes > 0) std::memset(shared_.data(), 0xff, shared_bytes);
    while (fiber_.size() < threads) {
      slots_.push_back(std::make_unique<Slot>(Slot{this, static_cast<unsigned>(fiber_.size())}));
      fiber_.push_back(std::make_unique<Fiber>(&Block::thread_body, slots_.back().get()));
      thread_.push_back(std::make_unique<Thread>());
    }
    warps_.resize((threads + kWarp - 1) / kWarp);
    for (Warp& warp : warps_) warp.live = 0;
    for (unsigned t = 0; t < threads; ++t) {
      Thread& thread = *thread_[t];
      thread.state = State::ready;
      thread.clock = thread.committed = 0;
      thread.seen.fill(0);
      thread.place = {};
      thread.copies.clear();
      warps_[t / kWarp].live |= 1u << t % kWarp;
    }
  }

  struct Slot {
    Block* block;
    unsigned thread;
  };
  static void thread_body(void* argument) {
    const Slot slot = *static_cast<Slot*>(argument);
    for (;;) {
      slot.block->body_(slot.block->argument_);
      slot.block->leave();
      slot.block->fiber_[slot.thread]->suspend();
    }
  }

  // Until no lane of the warp can go on: its lanes meet often, the warps seldom.
  bool run_warp(unsigned w) {
    bool moved = false;
    const unsigned first = w * kWarp;
    const unsigned last = std::min(first + kWarp, threads_);
    for (bool again = true; again && !faulty_;) {
      again = false;
      for (unsigned i = first; i < last && !faulty_; ++i) {
        running_ = reversed_ ? last - 1 - (i - first) : i;
        if (thread_[running_]->state != State::ready) continue;
        fiber_[running_]->resume();
        again = moved = true;
      }
    }
    return moved;
  }

  Thread& self() { return *thread_[running_]; }
  void wait(State state) {
    self().state = state;
    fiber_[running_]->suspend();
  }

  void leave() {
    Thread& me = self();
    if (at_barrier_ > 0)
      fault("divergent barrier: this thread left the kernel, others wait at ", At{barrier_place_});
    Warp& warp = warps_[running_ / kWarp];
    warp.live &= ~(1u << running_ % kWarp);
    for (const auto& meeting : warp.meetings)
      if (meeting->open && (meeting->mask >> running_ % kWarp & 1u) != 0)
        fault("this lane left the kernel, others of its warp wait for it at ", At{meeting->place},
              " with mask ", Hex{meeting->mask});
    me.state = State::left;
    ++left_;
    --live_;
  }

  // The meeting that others of the mask have opened, or a new one. Lanes of another mask may be at one of
  // their own and come later; those who never do are found as a deadlock, or when they leave.
  Meeting& join(Warp& warp, WarpKind kind, std::uint32_t mask, Place place) {
    Meeting* unused = nullptr;
    for (const auto& meeting : warp.meetings) {
      if (meeting->open && meeting->mask == mask && meeting->kind == kind && same(meeting->place, place))
        return *meeting;
      if (!meeting->open && meeting->to_leave == 0) unused = meeting.get();
    }
    if (unused == nullptr) {
      warp.meetings.push_back(std::make_unique<Meeting>());
      unused = warp.meetings.back().get();
    }
    unused->open = true;
    unused->kind = kind;
    unused->mask = mask;
    unused->arrived = 0;
    unused->to_leave = static_cast<unsigned>(__builtin_popcount(mask));
    unused->place = place;
    return *unused;
  }

  // What any of the lanes did or saw before happens before what they all do from now on.
  void order(const Warp& warp, std::uint32_t mask) {
    const unsigned first = static_cast<unsigned>(&warp - warps_.data()) * kWarp;
    std::array<std::uint32_t, kWarp> joined = {};
    for (unsigned l = 0; l < kWarp; ++l) {
      if ((mask >> l & 1u) == 0) continue;
      Thread& lane = *thread_[first + l];
      ++lane.clock;
      for (unsigned other = 0; other < kWarp; ++other)
        if (joined[other] < lane.seen[other]) joined[other] = lane.seen[other];
      if (joined[l] < lane.clock) joined[l] = lane.clock;
    }
    for (unsigned l = 0; l < kWarp; ++l)
      if (mask >> l & 1u) thread_[first + l]->seen = joined;
  }

  Access now(bool atomic) {
    const Thread& me = self();
    return {launch_first_, block_first_, interval_now_, running_, me.clock, &me.seen, atomic, pending_write_};
  }

  DeviceMemory::Found find_global(const void* pointer, std::size_t bytes, bool write) {
    const DeviceMemory::Found found = memory_.find(pointer, bytes);
    if (found.data == nullptr)
      fault(write ? "write" : "read", " of ", bytes,
            DeviceMemory::is_device(pointer) ? " bytes outside of every allocation of global memory"
                                             : " bytes at an address of the host");
    return found;
  }

  void check(Shadow* shadow, std::size_t bytes, bool write, bool atomic, bool shared, std::size_t offset) {
    Access access = now(atomic);
    if (shared) access.launch_first = block_first_;  // a block's own: what others did with it is no matter
    for (std::size_t i = 0; i < bytes; ++i) {
      Shadow& byte = shadow[i];
      const bool unwritten = shared ? !byte.written_since(block_first_) : !byte.written();
      if (unwritten && (!write || atomic))
        tell_access(byte, Verdict::uninitialised, write, shared, offset + i);
      Verdict verdict = byte.check_write_before(access);
      if (verdict == Verdict::fine && write) verdict = byte.check_reads_before(access);
      if (verdict != Verdict::fine) tell_access(byte, verdict, write, shared, offset + i);
      if (write) {
        byte.write(access);
      } else {
        byte.read(access);
      }
    }
  }

  struct Byte {
    bool told;
    std::size_t offset;
    friend std::ostream& operator<<(std::ostream& out, const Byte& b) {
      return b.told ? out << ", byte " << b.offset : out;
    }
  };
  [[noreturn, gnu::noinline]] void tell_access(const Shadow& byte, Verdict verdict, bool write, bool shared,
                                               std::size_t offset) {
    const char* what = write ? "write to " : "read of ";
    const char* kind = shared ? "shared memory" : "global memory";
    const Byte at = {shared, offset};
    switch (verdict) {
      case Verdict::uninitialised:
        fault("uninitialised: ", what, kind, at, " that nothing was written to");
      case Verdict::pending:
        fault("unfinished copy: ", what, kind, at, " that an asynchronous copy of thread ", byte.writer(),
              " has not filled: copy_wait() or a barrier is missing");
      case Verdict::race_with_write:
        fault("race: ", what, kind, at, " that thread ", byte.writer(),
              shared || !byte.other_block(now(false)) ? "" : " of another block",
              " wrote with no barrier in between");
      default:
        fault("race: ", what, kind, at, " that another thread reads with no barrier in between");
    }
  }

  template <class... Parts>
  void write_report(const Parts&... parts) {
    faulty_ = true;
    (report_ << ... << parts);
    report_ << " (thread " << running_ << " of block " << block_.x << "," << block_.y << "," << block_.z;
    if (self().place.line() != 0) report_ << ", after " << At{self().place};
    report_ << ")";
  }

  void report_deadlock() {
    faulty_ = true;
    report_ << "deadlock in block " << block_.x << "," << block_.y << "," << block_.z << ":";
    const Thread* before = nullptr;
    unsigned told = 0;
    for (unsigned t = 0; t < threads_ && told < 4; ++t) {
      const Thread& thread = *thread_[t];
      const bool at_warp = thread.state == State::warp;
      if (thread.state == State::left || (before != nullptr && thread.state == before->state &&
                                          (!at_warp || thread.meeting == before->meeting)))
        continue;
      before = &thread;
      report_ << (told++ == 0 ? " thread " : "; thread ") << t << " waits at "
              << (at_warp ? "the warp operation " : "the barrier ") << At{thread.place};
      if (at_warp) report_ << " with mask " << Hex{thread.meeting->mask};
    }
  }

  // The threads' stacks hold what they were at: begin anew with others.
  void abandon() {
    fiber_.clear();
    slots_.clear();
    thread_.clear();
    warps_.clear();
    pending_write_ = false;
  }

  struct AlignedDelete {
    void operator()(std::byte* p) const { ::operator delete[](p, std::align_val_t{128}); }
  };
  struct SharedBytes {
    std::byte* begin = nullptr;
    std::size_t count = 0;
    std::byte* data() const { return begin; }
    std::size_t size() const { return count; }
  };

  DeviceMemory& memory_;
  Index grid_, block_;
  unsigned threads_ = 0;
  unsigned live_ = 0;
  unsigned left_ = 0;
  unsigned at_barrier_ = 0;
  unsigned running_ = 0;
  Place barrier_place_;
  std::uint32_t launch_first_ = 0;
  std::uint32_t block_first_ = 0;
  std::uint32_t interval_now_ = 0;
  bool faulty_ = false;
  bool reversed_ = false;
  bool pending_write_ = false;
  std::ostringstream report_;
  void (*body_)(const void*) = nullptr;
  const void* argument_ = nullptr;
  std::unique_ptr<std::byte[], AlignedDelete> shared_storage_;
  SharedBytes shared_;
  std::vector<Shadow> shared_shadow_;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::vector<std::unique_ptr<Fiber>> fiber_;
  std::vector<std::unique_ptr<Thread>> thread_;
  std::vector<Warp> warps_;

  static inline thread_local Block* current_ = nullptr;
  static inline std::uint32_t interval_ = 0;
};

}  // namespace zeromerge::simt
