// Memory as the library takes it: whole pages, aligned to huge ones and asked for as such, zeroed.
#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

namespace bench {

class HugePages {
 public:
  HugePages() = default;
  explicit HugePages(std::size_t bytes);
  HugePages(HugePages&& other) noexcept { *this = std::move(other); }
  HugePages& operator=(HugePages&& other) noexcept {
    std::swap(all_, other.all_);
    std::swap(mapped_, other.mapped_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~HugePages();

  char* data() const noexcept { return data_; }
  std::size_t bytes() const noexcept { return bytes_; }

 private:
  void* all_ = nullptr;
  std::size_t mapped_ = 0;
  char* data_ = nullptr;
  std::size_t bytes_ = 0;
};

// Floats in such memory.
class HugeFloats {
 public:
  explicit HugeFloats(std::size_t n) : memory_(n * sizeof(float)), n_(n) {}
  explicit HugeFloats(const std::vector<float>& x) : HugeFloats(x.size()) {
    std::copy(x.begin(), x.end(), data());
  }
  float* data() { return reinterpret_cast<float*>(memory_.data()); }
  const float* data() const { return reinterpret_cast<const float*>(memory_.data()); }
  std::size_t size() const { return n_; }

 private:
  HugePages memory_;
  std::size_t n_;
};

}  // namespace bench
