// The device vocabulary does under emulation what it does on a device.
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "support/device.hpp"
#include "zeromerge/kernels/cuda/device.hpp"
#include "zeromerge/kernels/cuda/runtime.hpp"

namespace zeromerge::cuda {
namespace {

using test::downloaded;
using test::uploaded;
using Vocabulary = test::DeviceTest;

// Sums a row per block: shuffles inside the warps, shared memory between them.
template <unsigned kThreads>
ZEROMERGE_KERNEL(kThreads)
row_sums(GlobalSpan<const float> in, GlobalSpan<float> out, unsigned columns) {
  SharedMemory shared;
  SharedSpan<float> partial = shared.take<float>(kThreads / kWarp);
  float sum = 0.0f;
  for (unsigned i = thread_index(); i < columns; i += kThreads)
    sum += in[std::size_t{block_x()} * columns + i];
  for (unsigned bits = kWarp / 2; bits > 0; bits /= 2) sum += shuffle_xor(kAllLanes, sum, bits);
  if (lane_index() == 0) partial[warp_index()] = sum;
  sync_block();
  if (thread_index() == 0) {
    float total = 0.0f;
    for (unsigned w = 0; w < kThreads / kWarp; ++w) total += partial[w];
    out[block_x()] = total;
  }
}

TEST_F(Vocabulary, SumsRowsThroughShufflesAndSharedMemory) {
  constexpr unsigned kRows = 5, kColumns = 300;
  std::vector<float> in(kRows * kColumns);
  std::iota(in.begin(), in.end(), 0.0f);
  const Buffer<float> device = uploaded(in);
  Buffer<float> out(kRows);
  launch(row_sums<128>, {kRows}, 128, 16, {}, GlobalSpan<const float>(device.data(), device.size()),
         GlobalSpan<float>(out.data(), out.size()), kColumns);
  const std::vector<float> sums = downloaded(out);
  for (unsigned r = 0; r < kRows; ++r)
    EXPECT_EQ(sums[r], std::accumulate(in.begin() + r * kColumns, in.begin() + (r + 1) * kColumns, 0.0f));
}

}  // namespace
}  // namespace zeromerge::cuda
