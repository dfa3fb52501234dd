// The few words of the device that kernels are written in, so that the same source is compiled by nvcc and
// runs on the CPU in the tests, where an emulation (ZEROMERGE_SIMT; tests/simt) checks each access.
//
// A kernel:
//   template <class T>
//   ZEROMERGE_KERNEL(128) scale(GlobalSpan<const T> in, GlobalSpan<float> out, float by) {
//     SharedMemory shared;                                // the dynamic shared memory of the launch, 16-byte
//     aligned SharedSpan<float> row = shared.take<float>(128);    // every thread takes the same spans in the
//     same order row[thread_index()] = widen(in[thread_index()]) * by; sync_block(); out[thread_index()] =
//     row[127 - thread_index()];
//   }
// Rules that keep both compilations equal:
//   - memory is reached through spans only; `float x = span[i]`, never `auto` (the emulation's element is a
//     proxy), span.at(i) where a value is wanted in an expression with templates
//   - no noexcept on device functions, no STL; parameters are trivially copyable
//   - functions are ZEROMERGE_DEVICE, or ZEROMERGE_HOST_DEVICE where the host computes the same
//   - shuffles and votes order no memory, sync_warp(mask) does, as on the device; every lane that a mask
//   names
//     must take part; all threads of a block go through the same barriers
//
// thread_index() block_threads() lane_index() warp_index() block_warps()   blocks are one-dimensional
// block_x() block_y() block_z() grid_x() grid_y() grid_z()
// sync_block() sync_warp(mask) fence()
// shuffle(mask, v, lane) shuffle_xor(mask, v, bits) shuffle_down(mask, v, by) shuffle_up(mask, v, by)   4 or
// 8 bytes ballot(mask, p) any(mask, p) all(mask, p) SharedSpan<T>, GlobalSpan<T>: s[i] s.at(i) s.size()
// s.part(first, count) s.as<U>() load16(span, i) store16(span, i, v): 16 bytes from element i on, aligned;
// load16_once: not to be kept in caches copy_async16(shared, i, global, j[, valid]) copy_commit()
// copy_wait<N>()   16 bytes, zeros where not valid widen(f16|bf16|float|int8) -> float, narrow<T>(float),
// widen2_f16(u32) widen2_bf16(u32) -> Pair, widen4_q8(u32) -> Quad count_bits
// exp2_fast log2_fast dot4 bits_of<U>(v)
// atomic_add(span, i, v) atomic_max(span, i, v) atomic_min(span, i, v) -> the value before
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
