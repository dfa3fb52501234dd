// The emulated device: memory, what it claims to be able to do, and the launch of a grid. One for the
// program.
#pragma once

#include <mutex>

#include "simt/block.hpp"
#include "simt/launch_log.hpp"
#include "simt/memory.hpp"
#include "zeromerge/kernels/cuda/runtime.hpp"

namespace zeromerge::simt {

class Device {
 public:
  static Device& get() {
    static Device device;
    return device;
  }

  // As an A100's, of which tests may change what they are about.
  cuda::Limits limits = {"emulation", 8, 0, 108, 163 << 10, 164 << 10, 40u << 20, std::size_t{40} << 30};
  bool reversed = false;  // threads and blocks run in descending order
  DeviceMemory memory;
  std::recursive_mutex mutex;

  // `kernel`: its address, for its name; body(argument) calls it.
  void run(const void* kernel, cuda::Dim grid, unsigned threads, std::size_t shared_bytes,
           void (*body)(const void*), const void* argument) {
    const std::lock_guard lock(mutex);
    if (Block::inside()) throw Fault("a launch from inside a kernel");
    check_launch(grid, threads, shared_bytes);
    log_.add(kernel, threads, shared_bytes);
    const std::uint32_t first = Block::next_interval();
    block_.set_reversed(reversed);
    const std::size_t blocks = std::size_t{grid.x} * grid.y * grid.z;
    for (std::size_t i = 0; i < blocks; ++i) {
      const std::size_t b = reversed ? blocks - 1 - i : i;
      const Index index = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                           static_cast<unsigned>(b / grid.x / grid.y)};
      block_.run({grid.x, grid.y, grid.z}, index, threads, shared_bytes, first, body, argument);
    }
    ++launches;
  }
  std::size_t launches = 0;

 private:
  void check_launch(cuda::Dim grid, unsigned threads, std::size_t shared_bytes) const {
    if (threads == 0 || threads > Block::kMostThreads)
      throw Fault("a block of " + std::to_string(threads) + " threads, possible are 1 to 1024");
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535u ||
        grid.z > 65535u)
      throw Fault("a grid of " + std::to_string(grid.x) + " x " + std::to_string(grid.y) + " x " +
                  std::to_string(grid.z) + " blocks is not possible");
    if (shared_bytes > limits.shared_per_block)
      throw Fault(std::to_string(shared_bytes) + " bytes of shared memory, a block can have " +
                  std::to_string(limits.shared_per_block));
  }

  Block block_{memory};
  LaunchLog log_;
};

}  // namespace zeromerge::simt
