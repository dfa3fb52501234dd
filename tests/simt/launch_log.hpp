// Which kernels a program launched, and the largest block and shared memory of each: written at its end to
// the file that ZEROMERGE_SIMT_LAUNCHES names, one line a kernel, "mangled name, threads, bytes". Names are
// those that nvcc gives the same kernel; they are found only in programs that export them (ENABLE_EXPORTS in
// CMake).
#pragma once

#include <dlfcn.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <map>

namespace zeromerge::simt {

class LaunchLog {
 public:
  LaunchLog() = default;
  LaunchLog(const LaunchLog&) = delete;
  LaunchLog& operator=(const LaunchLog&) = delete;
  ~LaunchLog() {
    const char* path = std::getenv("ZEROMERGE_SIMT_LAUNCHES");
    std::FILE* file = path == nullptr ? nullptr : std::fopen(path, "w");
    if (file == nullptr) return;
    for (const auto& [kernel, most] : most_) {
      Dl_info info = {};
      if (dladdr(kernel, &info) != 0 && info.dli_saddr == kernel)
        std::fprintf(file, "%s %u %zu\n", info.dli_sname, most.threads, most.shared_bytes);
    }
    std::fclose(file);
  }

  void add(const void* kernel, unsigned threads, std::size_t shared_bytes) {
    Most& most = most_[kernel];
    most.threads = std::max(most.threads, threads);
    most.shared_bytes = std::max(most.shared_bytes, shared_bytes);
  }

 private:
  struct Most {
    unsigned threads = 0;
    std::size_t shared_bytes = 0;
  };
  std::map<const void*, Most> most_;
};

}  // namespace zeromerge::simt
