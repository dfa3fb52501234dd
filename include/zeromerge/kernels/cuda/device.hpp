// The few words of the device that kernels are written in, so that the same source is compiled by nvcc and
// runs on the CPU in the tests, where an emulation (ZEROMERGE_SIMT; tests/simt) checks each access.
//
//   template <class T>
//   ZEROMERGE_KERNEL(128) reversed(GlobalSpan<const T> in, GlobalSpan<float> out) {
//     SharedMemory shared;  // the dynamic shared memory of the launch
//     SharedSpan<float> row = shared.take<float>(128);  // all threads take the same spans in the same order
//     row[thread_index()] = widen(in.at(thread_index()));
//     sync_block();
//     out[thread_index()] = row[127 - thread_index()];
//   }
//
// Rules that keep both compilations equal:
// - Memory is reached through spans only. An element of the emulation is a proxy: write `float x = s[i]` or
//   `s.at(i)`, never `auto x = s[i]`.
// - Device functions are ZEROMERGE_DEVICE (ZEROMERGE_HOST_DEVICE where the host computes the same), without
//   noexcept and without the standard library. Parameters of kernels are trivially copyable.
// - Shuffles and votes order no memory, sync_warp(mask) does. Every lane that a mask names takes part.
// - All threads of a block go through the same barriers. Blocks of a launch are not ordered at all, not even
//   by atomics.
//
// Words:
// - thread_index, block_threads, lane_index, warp_index, block_warps; blocks are one-dimensional
// - block_x, block_y, block_z, grid_x, grid_y, grid_z
// - sync_block, sync_warp(mask)
// - shuffle(mask, v, lane), shuffle_xor, shuffle_down, shuffle_up: 4 or 8 bytes
// - ballot(mask, p), any, all; count_bits
// - SharedSpan<T>, GlobalSpan<T>: s[i], s.at(i), s.part(first, count), s.as<U>(); s.size() of shared ones
// - load16(s, i), store16(s, i, v): 16 bytes from element i on, aligned
// - copy_async16(shared, i, global, j, valid), copy_commit(), copy_wait<N>(): 16 bytes, zeros if not valid
// - widen(x), narrow<T>(x), widen2_f16, widen2_bf16, widen4_q8: between storage and float
// - exp2_fast, log2_fast, sqrt_exact, round_to_int, bits_of<U>(v)
// - atomic_add(s, i, v): the value before
#pragma once

#include <cstddef>
#include <cstdint>

#include "zeromerge/core/element.hpp"

namespace zeromerge::cuda {

inline constexpr unsigned kWarp = 32;
inline constexpr std::uint32_t kAllLanes = 0xffffffffu;

// 16 bytes as they travel between memory and registers.
struct alignas(16) Vec16 {
  std::uint32_t word[4];
};
struct Pair {
  float x, y;
};
struct Quad {
  float x, y, z, w;
};

}  // namespace zeromerge::cuda

#if defined(ZEROMERGE_SIMT)
#include "simt/device.hpp"
#elif defined(__CUDACC__)
#include "zeromerge/kernels/cuda/device_nvcc.hpp"
#else
#error "kernels for CUDA are compiled by nvcc, or with ZEROMERGE_SIMT for the emulation of the tests"
#endif
