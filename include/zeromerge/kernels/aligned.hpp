// Floats that begin with a cache line: a tile whose rows straddle two takes twice as long to load.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

namespace zeromerge::kernels {

class AlignedFloats {
 public:
  AlignedFloats() = default;
  explicit AlignedFloats(std::size_t n)  // uninitialised
      : data_(static_cast<float*>(::operator new(n * sizeof(float), kLine))) {}

  float* data() const noexcept { return data_.get(); }

 private:
  static constexpr std::align_val_t kLine{64};
  struct Free {
    void operator()(float* p) const noexcept { ::operator delete(p, kLine); }
  };

  std::unique_ptr<float, Free> data_;
};

}  // namespace zeromerge::kernels
