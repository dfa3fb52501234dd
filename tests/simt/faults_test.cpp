// Kernels that are wrong, each in one way, and what the emulation says of them. Next to each stands what
// makes it right, which must pass: a check that refuses everything would be worth nothing.
#include <string>
#include <vector>

#include "support/device.hpp"
#include "zeromerge/kernels/cuda/device.hpp"
#include "zeromerge/kernels/cuda/runtime.hpp"

namespace zeromerge::cuda {
namespace {

using test::downloaded;
using test::uploaded;

// What a launch is refused for; empty if it runs.
template <class Kernel, class... Args>
std::string fault_of(Kernel kernel, Dim grid, unsigned threads, std::size_t shared_bytes, Args... args) {
  try {
    launch(kernel, grid, threads, shared_bytes, {}, args...);
  } catch (const simt::Fault& fault) {
    return fault.what();
  }
  return "";
}
testing::AssertionResult says(const std::string& fault, const std::string& part) {
  if (fault.find(part) != std::string::npos) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "expected \"" << part << "\", got \"" << fault << "\"";
}
template <class T>
GlobalSpan<T> span_of(const Buffer<T>& buffer) {
  return {buffer.data(), buffer.size()};
}

// ---- races in shared memory

template <bool kBarrier>
ZEROMERGE_KERNEL(64)
reverse(GlobalSpan<float> out) {
  SharedMemory shared;
  SharedSpan<float> row = shared.take<float>(64);
  row[thread_index()] = static_cast<float>(thread_index());
  if (kBarrier) sync_block();
  out[thread_index()] = row[63 - thread_index()];
}

TEST(Faults, AReadBeforeTheBarrierIsARace) {
  const Buffer<float> out(64);
  EXPECT_EQ(fault_of(reverse<true>, {}, 64, 256, span_of(out)), "");
  EXPECT_EQ(downloaded(out)[3], 60.0f);
  // The first threads read what nobody has written yet, the last what others just wrote.
  EXPECT_TRUE(says(fault_of(reverse<false>, {}, 64, 256, span_of(out)), "uninitialised"));
}

// Rows are used again round after round: without the second barrier a quick thread overwrites what a slow one
// still reads.
template <bool kSecondBarrier>
ZEROMERGE_KERNEL(64)
rounds(GlobalSpan<float> out) {
  SharedMemory shared;
  SharedSpan<float> row = shared.take<float>(64);
  float sum = 0.0f;
  for (unsigned round = 0; round < 3; ++round) {
    row[thread_index()] = static_cast<float>(thread_index() + round);
    sync_block();
    sum += row[63 - thread_index()];
    if (kSecondBarrier) sync_block();
  }
  out[thread_index()] = sum;
}

TEST(Faults, AWriteOverWhatOthersStillReadIsARace) {
  const Buffer<float> out(64);
  EXPECT_EQ(fault_of(rounds<true>, {}, 64, 256, span_of(out)), "");
  EXPECT_TRUE(
      says(fault_of(rounds<false>, {}, 64, 256, span_of(out)),
           "race: read of shared memory, byte 252 that thread 63 wrote with no barrier in between (thread 0 "
           "of block 0,0,0, after faults_test.cpp:"));
}

TEST(Faults, AreFoundInWhicheverOrderThreadsRun) {
  const Buffer<float> out(64);
  simt::Device::get().reversed = true;
  EXPECT_EQ(fault_of(rounds<true>, {}, 64, 256, span_of(out)), "");
  const std::string fault = fault_of(rounds<false>, {}, 64, 256, span_of(out));
  simt::Device::get().reversed = false;
  EXPECT_TRUE(says(fault, "race: read of shared memory, byte 0 that thread 0 wrote"));
}

template <bool kAgree>
ZEROMERGE_KERNEL(64)
one_place() {
  SharedMemory shared;
  SharedSpan<unsigned> place = shared.take<unsigned>(1);
  if (!kAgree || thread_index() == 5) place[0] = 1u;
}

TEST(Faults, TwoWritesToOnePlaceAreARaceEvenOfTheSameValue) {
  EXPECT_EQ(fault_of(one_place<true>, {}, 64, 4), "");
  EXPECT_TRUE(
      says(fault_of(one_place<false>, {}, 64, 4),
           "race: write to shared memory, byte 0 that thread 0 wrote with no barrier in between (thread 1"));
}

enum class Order { sync_warp, shuffle, half };

// Lanes hand values over in shared memory.
template <Order kOrder>
ZEROMERGE_KERNEL(64)
neighbours(GlobalSpan<unsigned> out) {
  SharedMemory shared;
  SharedSpan<unsigned> row = shared.take<unsigned>(64);
  row[thread_index()] = thread_index();
  if (kOrder == Order::sync_warp) sync_warp();
  if (kOrder == Order::shuffle) shuffle(kAllLanes, 0u, 0);
  if (kOrder == Order::half) sync_warp(lane_index() < 16 ? 0xffffu : 0xffff0000u);
  out[thread_index()] = row[thread_index() ^ (kOrder == Order::half ? 8u : 16u)];
}
// The same through the other half of the warp, which sync_warp() of a half does not order.
ZEROMERGE_KERNEL(32)
across_halves(GlobalSpan<unsigned> out) {
  SharedMemory shared;
  SharedSpan<unsigned> row = shared.take<unsigned>(32);
  row[thread_index()] = thread_index();
  sync_warp(lane_index() < 16 ? 0xffffu : 0xffff0000u);
  if (lane_index() >= 16) out[thread_index()] = row[thread_index() ^ 16u];
}

TEST(Faults, SyncWarpOrdersAWarpAndAShuffleDoesNot) {
  const Buffer<unsigned> out(64);
  EXPECT_EQ(fault_of(neighbours<Order::sync_warp>, {}, 64, 256, span_of(out)), "");
  EXPECT_EQ(downloaded(out)[40], 56u);
  EXPECT_EQ(fault_of(neighbours<Order::half>, {}, 64, 256, span_of(out)), "");
  EXPECT_TRUE(
      says(fault_of(neighbours<Order::shuffle>, {}, 64, 256, span_of(out)), "race: read of shared memory"));
  EXPECT_TRUE(says(fault_of(across_halves, {}, 32, 128, span_of(out)), "race: read of shared memory"));
}

template <bool kBarrier>
ZEROMERGE_KERNEL(64)
next_warp(GlobalSpan<unsigned> out) {
  SharedMemory shared;
  SharedSpan<unsigned> row = shared.take<unsigned>(64);
  row[thread_index()] = thread_index();
  sync_warp();
  if (kBarrier) sync_block();
  if (warp_index() == 1) out[lane_index()] = row[lane_index()];
}

TEST(Faults, SyncWarpDoesNotOrderAnotherWarp) {
  const Buffer<unsigned> out(32);
  EXPECT_EQ(fault_of(next_warp<true>, {}, 64, 256, span_of(out)), "");
  EXPECT_TRUE(says(fault_of(next_warp<false>, {}, 64, 256, span_of(out)), "race: read of shared memory"));
}

// All lanes of a warp read a place, then one of them writes it.
template <bool kSync, unsigned kWriter>
ZEROMERGE_KERNEL(32)
read_then_write(GlobalSpan<unsigned> out) {
  SharedMemory shared;
  SharedSpan<unsigned> place = shared.take<unsigned>(1);
  if (lane_index() == kWriter) place[0] = 7u;
  sync_warp();
  out[lane_index()] = place[0];
  if (kSync) sync_warp();
  if (lane_index() == kWriter) place[0] = 8u;
}

TEST(Faults, AWriteAfterReadsOfTheSameWarpNeedsSyncWarp) {
  const Buffer<unsigned> out(32);
  EXPECT_EQ((fault_of(read_then_write<true, 31>, {}, 32, 4, span_of(out))), "");
  // The writer after the readers, and before them.
  EXPECT_TRUE(says(fault_of(read_then_write<false, 31>, {}, 32, 4, span_of(out)), "that thread 31 wrote"));
  EXPECT_TRUE(
      says(fault_of(read_then_write<false, 0>, {}, 32, 4, span_of(out)), "that another thread reads"));
}

template <bool kAtomic>
ZEROMERGE_KERNEL(64)
count_threads(GlobalSpan<unsigned> out) {
  SharedMemory shared;
  SharedSpan<unsigned> count = shared.take<unsigned>(1);
  if (thread_index() == 0) count[0] = 0u;
  sync_block();
  if (kAtomic) {
    atomic_add(count, 0, 1u);
  } else {
    count[0] += 1u;
  }
  sync_block();
  if (thread_index() == 0) out[0] = count[0];
}

TEST(Faults, AtomicsDoNotRaceWithEachOther) {
  const Buffer<unsigned> out(1);
  EXPECT_EQ(fault_of(count_threads<true>, {}, 64, 4, span_of(out)), "");
  EXPECT_EQ(downloaded(out)[0], 64u);
  EXPECT_TRUE(says(fault_of(count_threads<false>, {}, 64, 4, span_of(out)), "race"));
}

// ---- what was never written, and what is not there

ZEROMERGE_KERNEL(32)
sum_of_shared(GlobalSpan<float> out, unsigned written, unsigned read) {
  SharedMemory shared;
  SharedSpan<float> row = shared.take<float>(32);
  if (lane_index() < written) row[lane_index()] = 1.0f;
  sync_warp();
  float sum = 0.0f;
  for (unsigned i = 0; i < read; ++i) sum += row[i];
  if (lane_index() == 0) out[0] = sum;
}

TEST(Faults, SharedMemoryStartsUninitialisedInEachBlock) {
  const Buffer<float> out(1);
  EXPECT_EQ(fault_of(sum_of_shared, {}, 32, 128, span_of(out), 32u, 32u), "");
  EXPECT_TRUE(
      says(fault_of(sum_of_shared, {}, 32, 128, span_of(out), 31u, 32u), "uninitialised: read of shared"));
}

TEST(Faults, SharedMemoryEndsWithItsSpanAndTheLaunchsBytes) {
  const Buffer<float> out(1);
  EXPECT_TRUE(
      says(fault_of(sum_of_shared, {}, 32, 128, span_of(out), 32u, 33u), "out of range: elements 32 to 33"));
  EXPECT_TRUE(says(fault_of(sum_of_shared, {}, 32, 124, span_of(out), 32u, 32u), "the launch gives 124"));
}

ZEROMERGE_KERNEL(32)
copy_floats(GlobalSpan<const float> in, GlobalSpan<float> out, unsigned count) {
  if (thread_index() < count) out[thread_index()] = in[thread_index()];
}

TEST(Faults, GlobalMemoryIsCheckedAgainstSpanAllocationAndFirstWrite) {
  const Buffer<float> in = uploaded(std::vector<float>(20, 1.0f));
  const Buffer<float> out(20), fresh(20);
  const GlobalSpan<const float> from(in.data(), 20), too_long(in.data(), 21), unwritten(fresh.data(), 20);
  EXPECT_EQ(fault_of(copy_floats, {}, 32, 0, from, span_of(out), 20u), "");
  EXPECT_TRUE(
      says(fault_of(copy_floats, {}, 32, 0, from, span_of(out), 21u), "out of range: elements 20 to 21"));
  EXPECT_TRUE(says(fault_of(copy_floats, {}, 32, 0, too_long, GlobalSpan<float>(out.data(), 21), 21u),
                   "read of 4 bytes outside of every allocation"));
  EXPECT_TRUE(
      says(fault_of(copy_floats, {}, 32, 0, unwritten, span_of(out), 20u), "uninitialised: read of global"));
}

TEST(Faults, HostMemoryIsNotTheDevices) {
  const std::vector<float> in(20, 1.0f);
  const Buffer<float> out(20);
  EXPECT_TRUE(
      says(fault_of(copy_floats, {}, 32, 0, GlobalSpan<const float>(in.data(), 20), span_of(out), 20u),
           "address of the host"));
}

TEST(Faults, FreedMemoryIsGone) {
  const float* gone = nullptr;
  {
    const Buffer<float> in = uploaded(std::vector<float>(20, 1.0f));
    gone = in.data();
  }
  const Buffer<float> out(1 << 16);  // large, so that it does not take the place
  EXPECT_TRUE(says(fault_of(copy_floats, {}, 32, 0, GlobalSpan<const float>(gone, 20), span_of(out), 20u),
                   "outside of every allocation"));
}

ZEROMERGE_KERNEL(32)
load_at(GlobalSpan<const float> in, GlobalSpan<float> out, unsigned i) {
  const Vec16 v = load16(in, i);
  if (thread_index() == 0) out[0] = bits_of<float>(v.word[1]);
}

TEST(Faults, SixteenBytesAreAlignedAndInsideTheSpan) {
  const Buffer<float> in = uploaded(std::vector<float>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
  const Buffer<float> out(1);
  const GlobalSpan<const float> from(in.data(), 10);
  EXPECT_EQ(fault_of(load_at, {}, 32, 0, from, span_of(out), 4u), "");
  EXPECT_EQ(downloaded(out)[0], 5.0f);
  EXPECT_TRUE(says(fault_of(load_at, {}, 32, 0, from, span_of(out), 2u), "not a multiple of 16"));
  EXPECT_TRUE(says(fault_of(load_at, {}, 32, 0, from, span_of(out), 8u), "out of range: elements 8 to 12"));
}

// ---- between blocks

ZEROMERGE_KERNEL(32)
write_block_index(GlobalSpan<unsigned> out, unsigned stride) {
  if (thread_index() == 0) out[block_x() * stride] = block_x();
}
ZEROMERGE_KERNEL(32)
read_first_then_write(GlobalSpan<unsigned> out) {
  if (thread_index() == 0) out[block_x()] = out[0] + 1u;
}

TEST(Faults, BlocksOfOneLaunchAreNotOrdered) {
  const Buffer<unsigned> out = uploaded(std::vector<unsigned>(4, 0u));
  EXPECT_EQ(fault_of(write_block_index, {4}, 32, 0, span_of(out), 1u), "");
  EXPECT_TRUE(says(fault_of(write_block_index, {4}, 32, 0, span_of(out), 0u), "of another block"));
  EXPECT_EQ(fault_of(read_first_then_write, {1}, 32, 0, span_of(out)), "");
  EXPECT_TRUE(says(fault_of(read_first_then_write, {2}, 32, 0, span_of(out)), "of another block"));
}

// Block 1 writes what block 0 reads; blocks run one after another here, so only the record of the read tells.
ZEROMERGE_KERNEL(32)
read_then_overwrite(GlobalSpan<unsigned> place, GlobalSpan<unsigned> out) {
  if (thread_index() != 0) return;
  if (block_x() == 0) out[0] = place[0];
  if (block_x() == 1) place[0] = 1u;
}

TEST(Faults, AWriteOfAnotherBlocksInputIsARace) {
  const Buffer<unsigned> place = uploaded(std::vector<unsigned>(1, 0u)), out(1);
  EXPECT_EQ(fault_of(read_then_overwrite, {1}, 32, 0, span_of(place), span_of(out)), "");
  EXPECT_TRUE(
      says(fault_of(read_then_overwrite, {2}, 32, 0, span_of(place), span_of(out)), "race: write to global"));
}

// ---- asynchronous copies

enum class Wait { none, without_barrier, one_left, all };

// Two rows are on their way; all threads read both.
template <Wait kWait>
ZEROMERGE_KERNEL(32)
copy_rows(GlobalSpan<const float> in, GlobalSpan<float> out) {
  SharedMemory shared;
  SharedSpan<float> rows = shared.take<float>(256);
  for (unsigned r = 0; r < 2; ++r) {
    copy_async16(rows, r * 128 + thread_index() * 4, in, r * 128 + thread_index() * 4, thread_index() < 16);
    copy_commit();
  }
  if (kWait == Wait::one_left) copy_wait<1>();
  if (kWait == Wait::all || kWait == Wait::without_barrier) copy_wait<0>();
  if (kWait != Wait::without_barrier) sync_block();
  out[thread_index()] = rows[127 - thread_index()] + rows[128 + thread_index()];
}

TEST(Faults, AnAsynchronousCopyIsThereAfterTheWaitAndABarrier) {
  std::vector<float> values(256);
  for (unsigned i = 0; i < 256; ++i) values[i] = static_cast<float>(i);
  const Buffer<float> in = uploaded(values);
  const Buffer<float> out(32);
  const GlobalSpan<const float> from(in.data(), in.size());
  EXPECT_EQ(fault_of(copy_rows<Wait::all>, {}, 32, 1024, from, span_of(out)), "");
  EXPECT_EQ(downloaded(out)[5], 128.0f + 5.0f);  // 127 - 5 lies in the half that is zeros
  for (const std::string& fault : {fault_of(copy_rows<Wait::none>, {}, 32, 1024, from, span_of(out)),
                                   fault_of(copy_rows<Wait::one_left>, {}, 32, 1024, from, span_of(out))})
    EXPECT_TRUE(says(fault, "unfinished copy"));
  // The first thread meets copies that others have not even started, or not waited for.
  EXPECT_NE(fault_of(copy_rows<Wait::without_barrier>, {}, 32, 1024, from, span_of(out)), "");
}

// ---- threads that wait for each other

enum class Way { together, some_skip, other_barrier, some_leave };

template <Way kWay>
ZEROMERGE_KERNEL(64)
barriers() {
  const bool few = thread_index() < 40;
  if (kWay == Way::some_leave && !few) return;
  if (kWay == Way::other_barrier && few) {
    sync_block();
  } else if (kWay != Way::some_skip || few) {
    sync_block();
  }
}

TEST(Faults, ABarrierIsForAllThreadsOfABlock) {
  EXPECT_EQ(fault_of(barriers<Way::together>, {}, 64, 0), "");
  for (const std::string& fault :
       {fault_of(barriers<Way::some_skip>, {}, 64, 0), fault_of(barriers<Way::some_leave>, {}, 64, 0),
        fault_of(barriers<Way::other_barrier>, {}, 64, 0)})
    EXPECT_TRUE(says(fault, "divergent barrier"));
}

enum class Mask { whole, not_mine, gone, unequal, left_out };

template <Mask kMask>
ZEROMERGE_KERNEL(32)
shuffles(GlobalSpan<unsigned> out) {
  const unsigned lane = lane_index();
  if (kMask == Mask::gone && lane >= 16) return;
  std::uint32_t mask = kAllLanes;
  if (kMask == Mask::not_mine) mask = 0xffffu;
  if (kMask == Mask::unequal) mask = lane < 8 ? kAllLanes : 0xffffff00u;
  if (kMask == Mask::left_out) mask = lane < 16 ? 0xffffu : 0xffff0000u;
  out[lane] = shuffle_xor(mask, lane, kMask == Mask::not_mine || kMask == Mask::unequal ? 1 : 16);
}

TEST(Faults, AShufflesMaskNamesTheLanesThatTakePart) {
  const Buffer<unsigned> out(32);
  EXPECT_EQ(fault_of(shuffles<Mask::whole>, {}, 32, 0, span_of(out)), "");
  EXPECT_EQ(downloaded(out)[3], 19u);
  EXPECT_TRUE(says(fault_of(shuffles<Mask::not_mine>, {}, 32, 0, span_of(out)), "does not name lane 16"));
  EXPECT_TRUE(says(fault_of(shuffles<Mask::gone>, {}, 32, 0, span_of(out)), "left the kernel"));
  EXPECT_TRUE(says(fault_of(shuffles<Mask::unequal>, {}, 32, 0, span_of(out)), "with mask 0xffffffff"));
  EXPECT_TRUE(says(fault_of(shuffles<Mask::left_out>, {}, 32, 0, span_of(out)), "leaves out"));
  EXPECT_TRUE(says(fault_of(shuffles<Mask::whole>, {}, 20, 0, span_of(out)), "lanes that are not there"));
}

// The first warp waits for a shuffle that half of it reaches only behind the barrier.
ZEROMERGE_KERNEL(64)
crossed() {
  if (thread_index() < 16) {
    shuffle(kAllLanes, 0u, 0);
  } else {
    sync_block();
  }
}

TEST(Faults, ADeadlockNamesWhatIsWaitedFor) {
  const std::string fault = fault_of(crossed, {}, 64, 0);
  EXPECT_TRUE(says(fault, "deadlock"));
  EXPECT_TRUE(says(fault, "thread 0 waits at the warp operation faults_test.cpp"));
  EXPECT_TRUE(says(fault, "thread 16 waits at the barrier faults_test.cpp"));
}

TEST(Faults, LeaveADeviceThatGoesOn) {
  const Buffer<float> out(64);
  for (int i = 0; i < 3; ++i) {
    EXPECT_NE(fault_of(reverse<false>, {}, 64, 256, span_of(out)), "");
    EXPECT_EQ(fault_of(reverse<true>, {}, 64, 256, span_of(out)), "");
    EXPECT_EQ(downloaded(out)[0], 63.0f);
  }
}

// ---- launches

TEST(Faults, ALaunchMustBePossible) {
  EXPECT_TRUE(says(fault_of(barriers<Way::together>, {}, 1025, 0), "1025 threads"));
  EXPECT_TRUE(says(fault_of(barriers<Way::together>, {1, 65536}, 64, 0), "65536"));
  EXPECT_TRUE(says(fault_of(barriers<Way::together>, {0}, 64, 0), "a grid of 0"));
  EXPECT_TRUE(says(fault_of(barriers<Way::together>, {}, 64, 200 << 10), "a block can have"));
}

}  // namespace
}  // namespace zeromerge::cuda
