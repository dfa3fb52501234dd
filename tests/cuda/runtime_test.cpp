// What the host says to the device: memory, copies, streams and captured graphs.
#include <gtest/gtest.h>

#include <type_traits>
#include <utility>
#include <vector>

#include "support/device.hpp"
#include "zeromerge/kernels/cuda/device.hpp"

namespace zeromerge::cuda {
namespace {

using test::downloaded;
using test::uploaded;
using Runtime = test::DeviceTest;

ZEROMERGE_KERNEL(64)
add_to_all(GlobalSpan<int> values, GlobalSpan<const int> by, unsigned count) {
  const unsigned i = block_x() * block_threads() + thread_index();
  if (i < count) values[i] += by.at(0);
}
void add(const Buffer<int>& values, const Buffer<int>& by, Stream stream) {
  const auto count = static_cast<unsigned>(values.size());
  launch(add_to_all, {(count + 63) / 64}, 64, 0, stream, GlobalSpan<int>(values.data(), count),
         GlobalSpan<const int>(by.data(), 1), count);
}

TEST_F(Runtime, MovesBytesBothWaysAndWithin) {
  const OwnedStream stream;
  const Buffer<int> a = uploaded(std::vector<int>{1, 2, 3, 4}, stream);
  const Buffer<int> b(4);
  fill_bytes(b.data(), 0, b.bytes(), stream);
  copy_within(b.data() + 1, a.data(), 2 * sizeof(int), stream);
  EXPECT_EQ(downloaded(b, stream), (std::vector<int>{0, 1, 2, 0}));
}

TEST_F(Runtime, ABufferMovesAndIsFreedOnce) {
  static_assert(!std::is_copy_constructible_v<Buffer<int>>);
  Buffer<int> a = uploaded(std::vector<int>{5, 6});
  const int* where = a.data();
  Buffer<int> b = std::move(a);
  EXPECT_EQ(b.data(), where);
  EXPECT_EQ(a.data(), nullptr);
  a = std::move(b);
  EXPECT_EQ(downloaded(a), (std::vector<int>{5, 6}));
  EXPECT_EQ(Buffer<int>(0).data(), nullptr);
}

TEST_F(Runtime, TellsWhatTheDeviceCanDo) {
  const Limits l = limits();
  EXPECT_GE(l.major, 8);
  EXPECT_GT(l.multiprocessors, 0u);
  EXPECT_GE(l.shared_per_block, std::size_t{96} << 10);
}

// What is captured is not run, and each replay reads what lies in device memory then.
TEST_F(Runtime, AGraphReplaysWithWhatTheDeviceHoldsThen) {
  const OwnedStream stream;
  const Buffer<int> values = uploaded(std::vector<int>(100, 0), stream);
  const Buffer<int> by = uploaded(std::vector<int>{3}, stream);
  const Buffer<int> copy = uploaded(std::vector<int>(100, 0), stream);
  const Graph graph = capture(stream, [&] {
    add(values, by, stream);
    add(values, by, stream);
    copy_within(copy.data(), values.data(), values.bytes(), stream);
  });
  EXPECT_EQ(downloaded(values, stream), std::vector<int>(100, 0));
  graph.replay(stream);
  EXPECT_EQ(downloaded(copy, stream), std::vector<int>(100, 6));
  copy_in(by.data(), std::vector<int>{10}.data(), sizeof(int), stream);
  synchronise(stream);
  graph.replay(stream);
  graph.replay(stream);
  EXPECT_EQ(downloaded(copy, stream), std::vector<int>(100, 46));
}

TEST_F(Runtime, ABodyThatThrowsEndsItsCapture) {
  const OwnedStream stream;
  const Buffer<int> values = uploaded(std::vector<int>{1}, stream);
  EXPECT_THROW(capture(stream, [&] { fail("body"); }), Error);
  add(values, values, stream);
  EXPECT_EQ(downloaded(values, stream), std::vector<int>{2});
}

}  // namespace
}  // namespace zeromerge::cuda
