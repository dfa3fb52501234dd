// What the host says to a device: memory, copies and launches on the caller's stream, and a captured graph of
// them. The same words over the CUDA runtime (nvcc) and over the emulation of the tests (ZEROMERGE_SIMT),
// which also refuses what a capture refuses: allocation and waiting.
//
// - Stream: the caller's, not owned; {} is the default stream. OwnedStream makes one.
// - allocate(bytes), free(p): device memory, aligned to 256 bytes; a Buffer<T> owns some
// - copy_in(to, from, bytes, stream): host to device; copy_out: device to host; copy_within: on the device;
//   fill_bytes(to, byte, bytes, stream)
// - launch(kernel, grid, threads, shared_bytes, stream, arguments...)
// - synchronise(stream): waits, and throws what has gone wrong
// - capture(stream, body): a Graph of what the body puts on the stream, not run yet; graph.replay(stream)
// - why_no_device(): empty where there is one; limits(): what it can do
// - Stopwatch: time on the stream, for the benches
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "zeromerge/core/errors.hpp"

namespace zeromerge::cuda {

struct Dim {
  unsigned x = 1, y = 1, z = 1;
};

struct Limits {
  std::string name;
  int major = 0, minor = 0;  // compute capability
  unsigned multiprocessors = 0;
  std::size_t shared_per_block = 0;  // bytes, by opt-in
  std::size_t shared_per_multiprocessor = 0;
  std::size_t l2_bytes = 0;
  std::size_t memory_bytes = 0;
};

}  // namespace zeromerge::cuda

#if defined(ZEROMERGE_SIMT)
#include "simt/runtime.hpp"
#elif defined(__CUDACC__)
#include "zeromerge/kernels/cuda/runtime_nvcc.hpp"
#else
#error "the device side of CUDA is compiled by nvcc, or with ZEROMERGE_SIMT for the emulation of the tests"
#endif

namespace zeromerge::cuda {

// Device memory for `size()` elements. Not initialised.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::size_t count)
      : data_(count == 0 ? nullptr : static_cast<T*>(allocate(count * sizeof(T)))), count_(count) {}
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), count_(std::exchange(other.count_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
    return *this;
  }
  ~Buffer() { free(data_); }

  T* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return count_; }
  std::size_t bytes() const noexcept { return count_ * sizeof(T); }

 private:
  T* data_ = nullptr;
  std::size_t count_ = 0;
};

}  // namespace zeromerge::cuda
