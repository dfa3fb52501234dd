// What tests of the device side share. The same test runs on a device and under emulation; compiled by nvcc
// it is skipped where there is no device.
#pragma once

#include <gtest/gtest.h>

#include <span>
#include <string>
#include <vector>

#include "zeromerge/kernels/cuda/runtime.hpp"

namespace zeromerge::test {

class DeviceTest : public testing::Test {
 protected:
  void SetUp() override {
    static const std::string reason = cuda::why_no_device();
    if (!reason.empty()) GTEST_SKIP() << "no CUDA device: " << reason;
  }
};

// Copies of host memory on the device, and back; both wait.
template <class T>
cuda::Buffer<T> uploaded(const std::vector<T>& from, cuda::Stream stream = {}) {
  cuda::Buffer<T> buffer(from.size());
  cuda::copy_in(buffer.data(), from.data(), buffer.bytes(), stream);
  cuda::synchronise(stream);
  return buffer;
}
template <class T>
std::vector<T> downloaded(const cuda::Buffer<T>& from, cuda::Stream stream = {}) {
  std::vector<T> to(from.size());
  cuda::copy_out(to.data(), from.data(), from.bytes(), stream);
  cuda::synchronise(stream);
  return to;
}

}  // namespace zeromerge::test
