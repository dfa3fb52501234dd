// The host's words (zeromerge/kernels/cuda/runtime.hpp) over the emulated device. Work runs at once, except
// while a stream is captured: then it is recorded, and what CUDA forbids meanwhile throws.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <tuple>
#include <type_traits>
#include <vector>

#include "simt/device_emulation.hpp"

namespace zeromerge::simt {

using Work = std::function<void()>;
struct StreamState {
  std::vector<Work>* recording = nullptr;
};
// Streams of the calling thread that are being captured.
inline thread_local unsigned captures = 0;

// What destructors did meanwhile that a capture forbids: told at its end, for they cannot throw.
inline thread_local const char* late_refusal = nullptr;

inline void refuse_in_capture(const char* what) {
  if (captures > 0) throw Fault(std::string(what) + " while a stream is captured");
}
inline void put(StreamState* stream, Work work) {
  if (stream != nullptr && stream->recording != nullptr) {
    stream->recording->push_back(std::move(work));
  } else {
    if (stream == nullptr) refuse_in_capture("work on the default stream");
    work();
  }
}
inline DeviceMemory::Found device_bytes(const void* p, std::size_t bytes, const char* what) {
  const DeviceMemory::Found found = Device::get().memory.find(p, bytes);
  if (found.data == nullptr) throw Fault(std::string(what) + ": not inside an allocation of device memory");
  return found;
}
inline const void* host_bytes(const void* p, const char* what) {
  if (DeviceMemory::is_device(p)) throw Fault(std::string(what) + ": device memory where the host's is due");
  return p;
}

}  // namespace zeromerge::simt

namespace zeromerge::cuda {

using Stream = simt::StreamState*;

inline void* allocate(std::size_t bytes) {
  simt::refuse_in_capture("allocation");
  const std::lock_guard lock(simt::Device::get().mutex);
  return simt::Device::get().memory.allocate(bytes);
}
inline void free(void* p) noexcept {
  if (p == nullptr) return;
  if (simt::captures > 0) simt::late_refusal = "free";
  const std::lock_guard lock(simt::Device::get().mutex);
  simt::Device::get().memory.free(p);
}

inline void copy_in(void* to, const void* from, std::size_t bytes, Stream stream) {
  simt::put(stream, [=] {
    const std::lock_guard lock(simt::Device::get().mutex);
    if (bytes == 0) return;
    const auto found = simt::device_bytes(to, bytes, "copy to the device");
    std::memcpy(found.data, simt::host_bytes(from, "copy to the device"), bytes);
    const std::uint32_t now = simt::Block::next_interval();
    for (std::size_t i = 0; i < bytes; ++i) found.shadow[i].set_written(now);
  });
}
inline void copy_out(void* to, const void* from, std::size_t bytes, Stream stream) {
  simt::put(stream, [=] {
    const std::lock_guard lock(simt::Device::get().mutex);
    if (bytes == 0) return;
    simt::host_bytes(to, "copy from the device");
    std::memcpy(to, simt::device_bytes(from, bytes, "copy from the device").data, bytes);
  });
}
// What was not initialised stays so where it comes to.
inline void copy_within(void* to, const void* from, std::size_t bytes, Stream stream) {
  simt::put(stream, [=] {
    const std::lock_guard lock(simt::Device::get().mutex);
    if (bytes == 0) return;
    const auto target = simt::device_bytes(to, bytes, "copy on the device");
    const auto source = simt::device_bytes(from, bytes, "copy on the device");
    if (target.data < source.data + bytes && source.data < target.data + bytes)
      throw simt::Fault("copy on the device: the ranges overlap");
    std::memcpy(target.data, source.data, bytes);
    const std::uint32_t now = simt::Block::next_interval();
    for (std::size_t i = 0; i < bytes; ++i)
      target.shadow[i].set_written(source.shadow[i].written() ? now : 0);
  });
}
inline void fill_bytes(void* to, int byte, std::size_t bytes, Stream stream) {
  simt::put(stream, [=] {
    const std::lock_guard lock(simt::Device::get().mutex);
    if (bytes == 0) return;
    const auto found = simt::device_bytes(to, bytes, "fill");
    std::memset(found.data, byte, bytes);
    const std::uint32_t now = simt::Block::next_interval();
    for (std::size_t i = 0; i < bytes; ++i) found.shadow[i].set_written(now);
  });
}
inline void synchronise(Stream) { simt::refuse_in_capture("waiting for a stream"); }

class OwnedStream {
 public:
  operator Stream() const noexcept { return state_.get(); }

 private:
  std::unique_ptr<simt::StreamState> state_ = std::make_unique<simt::StreamState>();
};

template <class... Params, class... Args>
void launch(void (*kernel)(Params...), Dim grid, unsigned threads, std::size_t shared_bytes, Stream stream,
            Args&&... args) {
  static_assert((std::is_trivially_copyable_v<Params> && ...), "parameters travel as bytes");
  static_assert((sizeof(Params) + ... + 0) <= 4096, "parameters of a kernel have 4 KiB");
  struct Call {
    void (*kernel)(Params...);
    std::tuple<Params...> args;
  };
  const Call call{kernel, std::tuple<Params...>(static_cast<Params>(args)...)};
  simt::put(stream, [=] {
    simt::Device::get().run(
        reinterpret_cast<const void*>(kernel), grid, threads, shared_bytes,
        [](const void* p) {
          const Call& c = *static_cast<const Call*>(p);
          std::apply(c.kernel, c.args);
        },
        &call);
  });
}

class Graph {
 public:
  Graph() = default;
  explicit Graph(std::vector<simt::Work> work) : work_(std::move(work)) {}
  void replay(Stream stream) const {
    for (const simt::Work& work : work_) simt::put(stream, work);
  }
  std::size_t nodes() const { return work_.size(); }  // of the emulation only

 private:
  std::vector<simt::Work> work_;
};

template <class Body>
Graph capture(Stream stream, const Body& body) {
  if (stream == nullptr) throw simt::Fault("the default stream cannot be captured");
  if (stream->recording != nullptr) throw simt::Fault("the stream is being captured already");
  struct Recording {
    Stream stream;
    std::vector<simt::Work> work;
    explicit Recording(Stream s) : stream(s) { s->recording = &work, ++simt::captures; }
    ~Recording() { stream->recording = nullptr, --simt::captures; }
  };
  std::vector<simt::Work> work;
  {
    Recording recording(stream);
    simt::late_refusal = nullptr;
    body();
    work = std::move(recording.work);
    if (simt::late_refusal != nullptr)
      throw simt::Fault(std::string(simt::late_refusal) + " while a stream is captured");
  }
  return Graph(std::move(work));
}

inline std::string why_no_device() { return ""; }
inline Limits limits() { return simt::Device::get().limits; }

class Stopwatch {
 public:
  void start(Stream) { begin_ = std::chrono::steady_clock::now(); }
  float stop(Stream) {
    return std::chrono::duration<float, std::milli>(std::chrono::steady_clock::now() - begin_).count();
  }

 private:
  std::chrono::steady_clock::time_point begin_;
};

}  // namespace zeromerge::cuda
