// What the emulation knows of each byte of shared and global memory: who wrote it and who read it last. Two
// accesses of different threads, one of them a write, must be ordered: by a block barrier, by sync_warp()
// within a warp, or by the end of a launch. Shuffles and votes order no memory, just as on the device.
//
// Time is counted in intervals, numbered over the whole run: a new one begins with each launch, each block
// and each block barrier. Blocks run one after another, so
//   interval < launch's first   an earlier launch, or the host            ordered
//   interval < block's first    another block of this launch              not ordered
//   interval < current          this block before its last barrier        ordered
//   interval == current         ordered if by the same thread, or in one warp with a sync_warp() between
#pragma once

#include <array>
#include <cstdint>

namespace zeromerge::simt {

inline constexpr unsigned kWarp = 32;

// Who accesses, and when.
struct Access {
  std::uint32_t launch_first;
  std::uint32_t block_first;
  std::uint32_t interval;
  std::uint32_t thread;
  std::uint32_t clock;  // how many sync_warp() this lane took part in since the barrier
  const std::array<std::uint32_t, kWarp>*
      seen;  // per lane of the warp: accesses of a clock below are ordered
  bool atomic = false;
  bool pending = false;  // an asynchronous copy that nobody has waited for
};

enum class Verdict : std::uint8_t { fine, uninitialised, race_with_write, race_with_read, pending };

class Shadow {
 public:
  std::uint32_t writer() const { return write_thread_; }
  bool other_block(const Access& now) const { return write_interval_ < now.block_first; }
  bool written() const { return write_interval_ != 0; }
  bool written_since(std::uint32_t interval) const { return write_interval_ >= interval; }

  // The host, or a copy in stream order.
  void set_written(std::uint32_t interval) { *this = Shadow{}, write_interval_ = interval; }

  Verdict check_write_before(const Access& now) const {
    if (pending_ && write_interval_ >= now.block_first) return Verdict::pending;
    if (write_interval_ < now.launch_first || (atomic_ && now.atomic)) return Verdict::fine;
    if (write_interval_ < now.block_first) return Verdict::race_with_write;
    if (write_interval_ < now.interval || write_thread_ == now.thread) return Verdict::fine;
    const bool same_warp = write_thread_ / kWarp == now.thread / kWarp;
    if (same_warp && (*now.seen)[write_thread_ % kWarp] > write_clock_) return Verdict::fine;
    return Verdict::race_with_write;
  }

  Verdict check_reads_before(const Access& now) const {
    if (read_interval_ < now.launch_first) return Verdict::fine;
    if (read_warp_ == kSeveralBlocks || read_interval_ < now.block_first) return Verdict::race_with_read;
    if (read_interval_ < now.interval) return Verdict::fine;
    if (read_warp_ != now.thread / kWarp) return Verdict::race_with_read;
    for (unsigned lane = 0; lane < kWarp; ++lane) {
      const bool read = (read_lanes_ >> lane & 1u) != 0 && lane != now.thread % kWarp;
      if (read && (*now.seen)[lane] <= read_clock_) return Verdict::race_with_read;
    }
    return Verdict::fine;
  }

  void read(const Access& now) {
    const auto warp = static_cast<std::uint16_t>(now.thread / kWarp);
    const bool in_launch = read_interval_ >= now.launch_first;
    if (in_launch && (read_warp_ == kSeveralBlocks || read_interval_ < now.block_first)) {
      read_warp_ = kSeveralBlocks;
    } else if (read_interval_ != now.interval) {
      read_warp_ = warp;
      read_lanes_ = 0;
      read_clock_ = 0;
    } else if (read_warp_ != warp) {
      read_warp_ = kSeveralWarps;
    }
    read_interval_ = now.interval;
    read_lanes_ |= 1u << now.thread % kWarp;
    if (read_clock_ < now.clock) read_clock_ = now.clock;
  }

  // Reads before it that were ordered stay, for a write by another block must still meet them.
  void write(const Access& now) {
    write_interval_ = now.interval;
    write_clock_ = now.clock;
    write_thread_ = static_cast<std::uint16_t>(now.thread);
    atomic_ = now.atomic;
    pending_ = now.pending;
  }

 private:
  static constexpr std::uint16_t kSeveralWarps = 0xfffe;
  static constexpr std::uint16_t kSeveralBlocks = 0xffff;

  std::uint32_t write_interval_ = 0;  // 0: never written
  std::uint32_t write_clock_ = 0;
  std::uint32_t read_interval_ = 0;
  std::uint32_t read_clock_ = 0;  // the latest of the lanes'
  std::uint32_t read_lanes_ = 0;
  std::uint16_t read_warp_ = 0;
  std::uint16_t write_thread_ = 0;
  bool atomic_ = false;
  bool pending_ = false;
};

}  // namespace zeromerge::simt
