// The host's words (runtime.hpp) over the CUDA runtime.
#pragma once

#include <cuda_runtime.h>

#include <type_traits>

namespace zeromerge::cuda {

using Stream = cudaStream_t;

namespace detail {
inline void check(cudaError_t result, const char* what) {
  if (result != cudaSuccess) fail("cuda: ", what, ": ", cudaGetErrorString(result));
}
}  // namespace detail

inline void* allocate(std::size_t bytes) {
  void* p = nullptr;
  const cudaError_t result = cudaMalloc(&p, bytes);
  if (result != cudaSuccess)
    fail("cuda: no room for ", bytes, " bytes on the device: ", cudaGetErrorString(result));
  return p;
}
// Destructors call it, also after the device is gone: nothing to tell.
inline void free(void* p) noexcept { static_cast<void>(cudaFree(p)); }

inline void copy_in(void* to, const void* from, std::size_t bytes, Stream stream) {
  detail::check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream), "copy to the device");
}
inline void copy_out(void* to, const void* from, std::size_t bytes, Stream stream) {
  detail::check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream), "copy from the device");
}
inline void copy_within(void* to, const void* from, std::size_t bytes, Stream stream) {
  detail::check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream), "copy on the device");
}
inline void fill_bytes(void* to, int byte, std::size_t bytes, Stream stream) {
  detail::check(cudaMemsetAsync(to, byte, bytes, stream), "fill");
}
inline void synchronise(Stream stream) { detail::check(cudaStreamSynchronize(stream), "stream"); }

class OwnedStream {
 public:
  OwnedStream() { detail::check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "a new stream"); }
  ~OwnedStream() { static_cast<void>(cudaStreamDestroy(stream_)); }
  OwnedStream(const OwnedStream&) = delete;
  OwnedStream& operator=(const OwnedStream&) = delete;
  operator Stream() const noexcept { return stream_; }

 private:
  Stream stream_ = nullptr;
};

template <class... Params, class... Args>
void launch(void (*kernel)(Params...), Dim grid, unsigned threads, std::size_t shared_bytes, Stream stream,
            Args&&... args) {
  static_assert((std::is_trivially_copyable_v<Params> && ...), "parameters travel as bytes");
  constexpr std::size_t kWithoutAsking = 48 << 10;
  if (shared_bytes > kWithoutAsking)
    detail::check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                       static_cast<int>(shared_bytes)),
                  "shared memory of a kernel");
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(grid.x, grid.y, grid.z);
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  detail::check(cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...), "launch");
}

class Graph {
 public:
  Graph() = default;
  explicit Graph(cudaGraphExec_t graph) : graph_(graph) {}
  Graph(Graph&& other) noexcept : graph_(std::exchange(other.graph_, nullptr)) {}
  Graph& operator=(Graph&& other) noexcept {
    std::swap(graph_, other.graph_);
    return *this;
  }
  ~Graph() {
    if (graph_ != nullptr) static_cast<void>(cudaGraphExecDestroy(graph_));
  }
  void replay(Stream stream) const { detail::check(cudaGraphLaunch(graph_, stream), "replay of a graph"); }

 private:
  cudaGraphExec_t graph_ = nullptr;
};

// What `body` puts on the stream, which must not be the default one, is recorded and not run.
template <class Body>
Graph capture(Stream stream, const Body& body) {
  detail::check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
  cudaGraph_t recorded = nullptr;
  try {
    body();
  } catch (...) {
    static_cast<void>(cudaStreamEndCapture(stream, &recorded));
    if (recorded != nullptr) static_cast<void>(cudaGraphDestroy(recorded));
    throw;
  }
  detail::check(cudaStreamEndCapture(stream, &recorded), "end of a capture");
  cudaGraphExec_t graph = nullptr;
  const cudaError_t result = cudaGraphInstantiate(&graph, recorded, 0);
  static_cast<void>(cudaGraphDestroy(recorded));
  detail::check(result, "a captured graph");
  return Graph(graph);
}

inline std::string why_no_device() {
  int count = 0;
  const cudaError_t result = cudaGetDeviceCount(&count);
  if (result != cudaSuccess) return cudaGetErrorString(result);
  return count > 0 ? "" : "the CUDA runtime finds no device";
}

inline Limits limits() {
  int device = 0;
  detail::check(cudaGetDevice(&device), "the current device");
  cudaDeviceProp p = {};
  detail::check(cudaGetDeviceProperties(&p, device), "properties of the device");
  return {p.name,
          p.major,
          p.minor,
          static_cast<unsigned>(p.multiProcessorCount),
          p.sharedMemPerBlockOptin,
          p.sharedMemPerMultiprocessor,
          static_cast<std::size_t>(p.l2CacheSize),
          p.totalGlobalMem};
}

class Stopwatch {
 public:
  Stopwatch() {
    detail::check(cudaEventCreate(&begin_), "an event");
    detail::check(cudaEventCreate(&end_), "an event");
  }
  ~Stopwatch() {
    static_cast<void>(cudaEventDestroy(begin_));
    static_cast<void>(cudaEventDestroy(end_));
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;
  void start(Stream stream) { detail::check(cudaEventRecord(begin_, stream), "an event"); }
  // Waits, and gives the milliseconds since start().
  float stop(Stream stream) {
    detail::check(cudaEventRecord(end_, stream), "an event");
    detail::check(cudaEventSynchronize(end_), "an event");
    float milliseconds = 0.0f;
    detail::check(cudaEventElapsedTime(&milliseconds, begin_, end_), "an event");
    return milliseconds;
  }

 private:
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

}  // namespace zeromerge::cuda
