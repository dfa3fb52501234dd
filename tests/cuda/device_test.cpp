// The device vocabulary does under emulation what it does on a device.
#include <gtest/gtest.h>

#include <cmath>
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

// Each lane's answers, one row of 32 a word.
ZEROMERGE_KERNEL(32)
warp_words(GlobalSpan<unsigned> out) {
  const unsigned lane = lane_index();
  const std::uint32_t half = lane < 16 ? 0xffffu : 0xffff0000u;
  out[0 * kWarp + lane] = shuffle(kAllLanes, lane * 10, (lane + 3) % kWarp);
  out[1 * kWarp + lane] = shuffle_xor(half, lane, 5);
  out[2 * kWarp + lane] = shuffle_down(kAllLanes, lane, 4);
  out[3 * kWarp + lane] = shuffle_up(kAllLanes, lane, 4);
  out[4 * kWarp + lane] = ballot(half, lane % 3 == 0);
  out[5 * kWarp + lane] = any(half, lane == 20) ? 1u : 0u;
  out[6 * kWarp + lane] = all(half, lane < 20) ? 1u : 0u;
  out[7 * kWarp + lane] = static_cast<unsigned>(shuffle(kAllLanes, std::uint64_t{lane} << 33, 1) >> 33);
}

TEST_F(Vocabulary, ShufflesAndVotesAsAWarpDoes) {
  const Buffer<unsigned> device(8 * kWarp);
  launch(warp_words, {}, 32, 0, {}, GlobalSpan<unsigned>(device.data(), device.size()));
  const std::vector<unsigned> out = downloaded(device);
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    SCOPED_TRACE(lane);
    const bool low = lane < 16;
    EXPECT_EQ(out[0 * kWarp + lane], (lane + 3) % 32 * 10);
    EXPECT_EQ(out[1 * kWarp + lane], lane ^ 5u);
    EXPECT_EQ(out[2 * kWarp + lane], lane + 4 < 32 ? lane + 4 : lane) << "beyond the warp: its own value";
    EXPECT_EQ(out[3 * kWarp + lane], lane >= 4 ? lane - 4 : lane);
    EXPECT_EQ(out[4 * kWarp + lane], low ? 0x9249u : 0x49240000u);
    EXPECT_EQ(out[5 * kWarp + lane], low ? 0u : 1u);
    EXPECT_EQ(out[6 * kWarp + lane], low ? 1u : 0u);
    EXPECT_EQ(out[7 * kWarp + lane], 1u);
  }
}

ZEROMERGE_KERNEL(64)
own_place(GlobalSpan<unsigned> out) {
  const unsigned block = (block_z() * grid_y() + block_y()) * grid_x() + block_x();
  out[block * block_threads() + thread_index()] =
      block * 1000 + warp_index() * 100 + lane_index() + block_warps();
}

TEST_F(Vocabulary, EveryThreadKnowsItsPlace) {
  constexpr unsigned kThreads = 48;  // a warp and a half
  const Buffer<unsigned> device(2 * 3 * 4 * kThreads);
  launch(own_place, {2, 3, 4}, kThreads, 0, {}, GlobalSpan<unsigned>(device.data(), device.size()));
  const std::vector<unsigned> out = downloaded(device);
  for (unsigned i = 0; i < out.size(); ++i)
    ASSERT_EQ(out[i], i / kThreads * 1000 + i % kThreads / 32 * 100 + i % kThreads % 32 + 2);
}

struct Words {
  std::uint32_t from[3];
  float widened[16];
  std::uint16_t f16_bits[4];
  std::uint16_t bf16_bits[4];
  int rounded[4];
  float exp2, log2;
};
ZEROMERGE_KERNEL(32)
convert(GlobalSpan<const float> in, GlobalSpan<Words> out) {
  if (thread_index() != 0) return;
  Words w = {};
  w.from[0] = 0x3c00c000u;  // f16 1, -2
  w.from[1] = 0x3f80c000u;  // bf16 1, -2
  w.from[2] = 0x7f80ff01u;  // q8 127, -128, -1, 1
  const Pair half = widen2_f16(w.from[0]);
  const Pair brain = widen2_bf16(w.from[1]);
  const Quad bytes = widen4_q8(w.from[2]);
  const float all[] = {half.x, half.y, brain.x, brain.y, bytes.x, bytes.y, bytes.z, bytes.w};
  for (int i = 0; i < 8; ++i) w.widened[i] = all[i];
  w.widened[8] = widen(f16{0x0001});
  w.widened[9] = widen(bf16{0x7f80});
  w.widened[10] = widen(std::int8_t{-128});
  for (int i = 0; i < 4; ++i) {
    const float x = in[static_cast<std::size_t>(i)];
    w.f16_bits[i] = narrow<f16>(x).bits;
    w.bf16_bits[i] = narrow<bf16>(x).bits;
    w.rounded[i] = round_to_int(x);
  }
  w.exp2 = exp2_fast(-3.5f);
  w.log2 = log2_fast(10.0f);
  out[0] = w;
}

TEST_F(Vocabulary, ConvertsAsTheHostDoes) {
  const std::vector<float> in = {2.5f, -3.5f, 1.0009765f, 70.0f};
  const Buffer<float> device = uploaded(in);
  const Buffer<Words> words(1);
  launch(convert, {}, 32, 0, {}, GlobalSpan<const float>(device.data(), 4),
         GlobalSpan<Words>(words.data(), 1));
  const Words w = downloaded(words)[0];
  const float widened[] = {-2, 1, -2, 1, 1, -1, -128, 127, 0x1p-24f, INFINITY, -128};
  for (int i = 0; i < 11; ++i) EXPECT_EQ(w.widened[i], widened[i]) << i;
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(w.f16_bits[i], from_f32<f16>(in[i]).bits);
    EXPECT_EQ(w.bf16_bits[i], from_f32<bf16>(in[i]).bits);
    EXPECT_EQ(w.rounded[i], static_cast<int>(std::nearbyint(in[i])));
  }
  EXPECT_NEAR(w.exp2, std::exp2(-3.5), 1e-7);
  EXPECT_NEAR(w.log2, std::log2(10.0), 1e-6);
}

// Rows of 128 floats come through shared memory, the next one on its way while one is worked on.
ZEROMERGE_KERNEL(32)
pipelined(GlobalSpan<const float> in, GlobalSpan<float> out, unsigned rows) {
  SharedMemory shared;
  SharedSpan<float> stages = shared.take<float>(2 * 128);
  const unsigned at = thread_index() * 4;
  copy_async16(stages, at, in, at);
  copy_commit();
  float sum = 0.0f;
  for (unsigned r = 0; r < rows; ++r) {
    const unsigned next = (r + 1) % 2 * 128;
    const bool there = r + 1 < rows;
    copy_async16(stages, next + at, in, there ? std::size_t{r + 1} * 128 + at : 0, there);
    copy_commit();
    copy_wait<1>();
    sync_warp();
    sum += stages[r % 2 * 128 + (thread_index() * 37 + r) % 128];
    sync_warp();
  }
  copy_wait<0>();
  out[thread_index()] = sum;
}

TEST_F(Vocabulary, CopiesAheadWhileItWorks) {
  constexpr unsigned kRows = 5;
  std::vector<float> in(kRows * 128);
  std::iota(in.begin(), in.end(), 1.0f);
  const Buffer<float> device = uploaded(in);
  const Buffer<float> out(32);
  launch(pipelined, {}, 32, 2 * 128 * 4, {}, GlobalSpan<const float>(device.data(), device.size()),
         GlobalSpan<float>(out.data(), out.size()), kRows);
  const std::vector<float> sums = downloaded(out);
  for (unsigned t = 0; t < 32; ++t) {
    float sum = 0.0f;
    for (unsigned r = 0; r < kRows; ++r) sum += in[r * 128 + (t * 37 + r) % 128];
    EXPECT_EQ(sums[t], sum);
  }
}

ZEROMERGE_KERNEL(64)
atomics(GlobalSpan<int> out) {
  const int value = static_cast<int>(block_x() * 64 + thread_index());
  atomic_add(out, 0, value);
}

TEST_F(Vocabulary, AtomicsMeetAcrossBlocks) {
  const Buffer<int> out = uploaded(std::vector<int>{5});
  launch(atomics, {3}, 64, 0, {}, GlobalSpan<int>(out.data(), 1));
  EXPECT_EQ(downloaded(out)[0], 5 + 191 * 192 / 2);
}

}  // namespace
}  // namespace zeromerge::cuda
