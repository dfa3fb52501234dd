// What the emulated device refuses although it could do it, because a device cannot.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "support/device.hpp"
#include "zeromerge/kernels/cuda/device.hpp"

namespace zeromerge::cuda {
namespace {

using test::downloaded;
using test::uploaded;

template <class Body>
std::string fault_of(const Body& body) {
  try {
    body();
  } catch (const simt::Fault& fault) {
    return fault.what();
  }
  return "";
}

TEST(EmulatedRuntime, NothingAllocatesFreesOrWaitsInACapture) {
  const OwnedStream stream, other;
  EXPECT_EQ(fault_of([&] { capture(stream, [&] { Buffer<int> b(4); }); }),
            "allocation while a stream is captured");
  EXPECT_EQ(fault_of([&] { capture(stream, [&] { synchronise(stream); }); }),
            "waiting for a stream while a stream is captured");
  EXPECT_EQ(fault_of([&] { capture(stream, [&] { synchronise(other); }); }),
            "waiting for a stream while a stream is captured");
  Buffer<int> held(4);
  EXPECT_EQ(fault_of([&] { capture(stream, [&] { const Buffer<int> gone(std::move(held)); }); }),
            "free while a stream is captured");
}

TEST(EmulatedRuntime, TheDefaultStreamIsNotCaptured) {
  const OwnedStream stream;
  const Buffer<int> values = uploaded(std::vector<int>{1});
  EXPECT_NE(fault_of([&] { capture({}, [] {}); }), "");
  EXPECT_NE(fault_of([&] { capture(stream, [&] { fill_bytes(values.data(), 0, 4, {}); }); }), "");
  EXPECT_NE(fault_of([&] { capture(stream, [&] { capture(stream, [] {}); }); }), "");
}

TEST(EmulatedRuntime, CopiesStayInsideAllocations) {
  const Buffer<int> a = uploaded(std::vector<int>{1, 2, 3}), b(3);
  int host[4] = {};
  EXPECT_NE(fault_of([&] { copy_out(host, a.data(), 16, {}); }), "");
  EXPECT_NE(fault_of([&] { copy_in(b.data() + 1, host, 12, {}); }), "");
  EXPECT_NE(fault_of([&] { copy_in(host, host, 12, {}); }), "");
  EXPECT_NE(fault_of([&] { copy_in(b.data(), a.data(), 12, {}); }), "");
  EXPECT_NE(fault_of([&] { copy_out(a.data(), b.data(), 12, {}); }), "");
  EXPECT_NE(fault_of([&] { copy_within(a.data() + 1, a.data(), 8, {}); }), "");
  EXPECT_EQ(fault_of([&] { copy_within(b.data(), a.data(), 12, {}); }), "");
}

ZEROMERGE_KERNEL(32)
read_all(GlobalSpan<const int> in, GlobalSpan<int> out) {
  if (thread_index() < 3) out[thread_index()] = in[thread_index()];
}

TEST(EmulatedRuntime, ACopyOfUninitialisedMemoryIsUninitialised) {
  const Buffer<int> fresh(3), copy(3), out(3);
  copy_within(copy.data(), fresh.data(), copy.bytes(), {});
  const auto run = [&] {
    launch(read_all, {}, 32, 0, {}, GlobalSpan<const int>(copy.data(), 3), GlobalSpan<int>(out.data(), 3));
  };
  EXPECT_NE(fault_of(run).find("uninitialised"), std::string::npos);
  fill_bytes(copy.data(), 1, copy.bytes(), {});
  EXPECT_EQ(fault_of(run), "");
}

TEST(EmulatedRuntimeDeathTest, FollowingADevicePointerOnTheHostCrashes) {
  const Buffer<int> a = uploaded(std::vector<int>{1});
  EXPECT_DEATH(std::printf("%d", *const_cast<const volatile int*>(a.data())), "");
}

TEST(EmulatedRuntime, CountsWhatIsHeld) {
  const std::size_t before = simt::Device::get().memory.held();
  {
    const Buffer<float> a(100), b(3);
    EXPECT_EQ(simt::Device::get().memory.held(), before + 412);
  }
  EXPECT_EQ(simt::Device::get().memory.held(), before);
}

}  // namespace
}  // namespace zeromerge::cuda
