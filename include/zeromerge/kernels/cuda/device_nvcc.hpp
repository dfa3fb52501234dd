// The device vocabulary (device.hpp) for nvcc: each word is one instruction or a few.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstring>

#define ZEROMERGE_KERNEL(threads) __global__ void __launch_bounds__(threads)
// At least so many blocks on a multiprocessor: the compiler keeps the registers within that.
#define ZEROMERGE_KERNEL_RESIDENT(threads, blocks) __global__ void __launch_bounds__(threads, blocks)
#define ZEROMERGE_DEVICE __device__ __forceinline__
#define ZEROMERGE_HOST_DEVICE __host__ __device__ __forceinline__
#define ZEROMERGE_UNROLL_DEVICE _Pragma("unroll")
#define ZEROMERGE_PRAGMA_TEXT(text) _Pragma(#text)
#define ZEROMERGE_UNROLL_DEVICE_BY(times) ZEROMERGE_PRAGMA_TEXT(unroll(times))

namespace zeromerge::cuda {

ZEROMERGE_DEVICE unsigned thread_index() { return threadIdx.x; }
ZEROMERGE_DEVICE unsigned block_threads() { return blockDim.x; }
ZEROMERGE_DEVICE unsigned lane_index() { return threadIdx.x % kWarp; }
ZEROMERGE_DEVICE unsigned warp_index() { return threadIdx.x / kWarp; }
ZEROMERGE_DEVICE unsigned block_warps() { return (blockDim.x + kWarp - 1) / kWarp; }
ZEROMERGE_DEVICE unsigned block_x() { return blockIdx.x; }
ZEROMERGE_DEVICE unsigned block_y() { return blockIdx.y; }
ZEROMERGE_DEVICE unsigned block_z() { return blockIdx.z; }
ZEROMERGE_DEVICE unsigned grid_x() { return gridDim.x; }
ZEROMERGE_DEVICE unsigned grid_y() { return gridDim.y; }
ZEROMERGE_DEVICE unsigned grid_z() { return gridDim.z; }

ZEROMERGE_DEVICE void sync_block() { __syncthreads(); }
ZEROMERGE_DEVICE void sync_warp(std::uint32_t mask = kAllLanes) { __syncwarp(mask); }

template <class T>
ZEROMERGE_DEVICE T shuffle(std::uint32_t mask, T v, unsigned lane) {
  return __shfl_sync(mask, v, static_cast<int>(lane));
}
template <class T>
ZEROMERGE_DEVICE T shuffle_xor(std::uint32_t mask, T v, unsigned bits) {
  return __shfl_xor_sync(mask, v, static_cast<int>(bits));
}
template <class T>
ZEROMERGE_DEVICE T shuffle_down(std::uint32_t mask, T v, unsigned by) {
  return __shfl_down_sync(mask, v, by);
}
template <class T>
ZEROMERGE_DEVICE T shuffle_up(std::uint32_t mask, T v, unsigned by) {
  return __shfl_up_sync(mask, v, by);
}
ZEROMERGE_DEVICE std::uint32_t ballot(std::uint32_t mask, bool p) { return __ballot_sync(mask, p); }
ZEROMERGE_DEVICE bool any(std::uint32_t mask, bool p) { return __any_sync(mask, p) != 0; }
ZEROMERGE_DEVICE bool all(std::uint32_t mask, bool p) { return __all_sync(mask, p) != 0; }

// Elements of shared memory; 32-bit indices, for addresses there have no more.
template <class T>
class SharedSpan {
 public:
  SharedSpan() = default;
  ZEROMERGE_DEVICE SharedSpan(T* data, unsigned count) : data_(data), count_(count) {}
  template <class U>
  ZEROMERGE_DEVICE SharedSpan(SharedSpan<U> other) : data_(other.raw()), count_(other.size()) {}
  ZEROMERGE_DEVICE T& operator[](unsigned i) const { return data_[i]; }
  ZEROMERGE_DEVICE T at(unsigned i) const { return data_[i]; }
  ZEROMERGE_DEVICE unsigned size() const { return count_; }
  ZEROMERGE_DEVICE SharedSpan part(unsigned first, unsigned count) const { return {data_ + first, count}; }
  template <class U>
  ZEROMERGE_DEVICE SharedSpan<U> as() const {
    return {reinterpret_cast<U*>(data_), static_cast<unsigned>(count_ * sizeof(T) / sizeof(U))};
  }
  ZEROMERGE_DEVICE T* raw() const { return data_; }  // for the functions of this file

 private:
  T* data_ = nullptr;
  unsigned count_ = 0;
};

// The dynamic shared memory of the launch, given out from its beginning, each span aligned to 16 bytes.
class SharedMemory {
 public:
  template <class T>
  ZEROMERGE_DEVICE SharedSpan<T> take(unsigned count) {
    extern __shared__ __align__(128) unsigned char zeromerge_shared[];
    T* data = reinterpret_cast<T*>(zeromerge_shared + used_);
    used_ += (count * static_cast<unsigned>(sizeof(T)) + 15u) / 16u * 16u;
    return {data, count};
  }

 private:
  unsigned used_ = 0;
};

// Elements of global memory. The count is known to the emulation only: on the device it would cost a
// register.
template <class T>
class GlobalSpan {
 public:
  GlobalSpan() = default;
  ZEROMERGE_HOST_DEVICE GlobalSpan(T* data, std::size_t) : data_(data) {}
  template <class U>
  ZEROMERGE_HOST_DEVICE GlobalSpan(GlobalSpan<U> other) : data_(other.raw()) {}
  ZEROMERGE_DEVICE T& operator[](std::size_t i) const { return data_[i]; }
  ZEROMERGE_DEVICE T at(std::size_t i) const { return data_[i]; }
  ZEROMERGE_HOST_DEVICE GlobalSpan part(std::size_t first, std::size_t count) const {
    return {data_ + first, count};
  }
  template <class U>
  ZEROMERGE_HOST_DEVICE GlobalSpan<U> as() const {
    return {reinterpret_cast<U*>(data_), 0};
  }
  ZEROMERGE_HOST_DEVICE explicit operator bool() const { return data_ != nullptr; }
  ZEROMERGE_HOST_DEVICE T* raw() const { return data_; }

 private:
  T* data_ = nullptr;
};

template <class T>
ZEROMERGE_DEVICE Vec16 load16(SharedSpan<T> s, unsigned i) {
  return *reinterpret_cast<const Vec16*>(s.raw() + i);
}
template <class T>
ZEROMERGE_DEVICE void store16(SharedSpan<T> s, unsigned i, Vec16 v) {
  *reinterpret_cast<Vec16*>(s.raw() + i) = v;
}
template <class T>
ZEROMERGE_DEVICE Vec16 load16(GlobalSpan<T> s, std::size_t i) {
  const uint4 v = *reinterpret_cast<const uint4*>(s.raw() + i);
  return {{v.x, v.y, v.z, v.w}};
}
template <class T>
ZEROMERGE_DEVICE void store16(GlobalSpan<T> s, std::size_t i, Vec16 v) {
  *reinterpret_cast<uint4*>(s.raw() + i) = make_uint4(v.word[0], v.word[1], v.word[2], v.word[3]);
}

template <class T, class U>
ZEROMERGE_DEVICE void copy_async16(SharedSpan<T> to, unsigned i, GlobalSpan<U> from, std::size_t j,
                                   bool valid = true) {
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(to.raw() + i));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from.raw() + j),
               "r"(valid ? 16 : 0)
               : "memory");
}
ZEROMERGE_DEVICE void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <unsigned kGroups>
ZEROMERGE_DEVICE void copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
}

template <class U, class T>
ZEROMERGE_DEVICE U bits_of(T v) {
  static_assert(sizeof(U) == sizeof(T));
  U u;
  memcpy(&u, &v, sizeof u);
  return u;
}

ZEROMERGE_DEVICE float widen(float x) { return x; }
ZEROMERGE_DEVICE float widen(f16 x) { return __half2float(__ushort_as_half(x.bits)); }
ZEROMERGE_DEVICE float widen(bf16 x) { return __uint_as_float(static_cast<std::uint32_t>(x.bits) << 16); }
ZEROMERGE_DEVICE float widen(std::int8_t x) { return static_cast<float>(x); }
template <class T>
ZEROMERGE_DEVICE T narrow(float x) {
  if constexpr (sizeof(T) == 4) {
    return x;
  } else if constexpr (element_of<T> == Element::f16) {
    return T{__half_as_ushort(__float2half_rn(x))};
  } else {
    return T{__bfloat16_as_ushort(__float2bfloat16_rn(x))};
  }
}
// The lower half first.
ZEROMERGE_DEVICE Pair widen2_f16(std::uint32_t w) {
  const float2 f = __half22float2(*reinterpret_cast<const __half2*>(&w));
  return {f.x, f.y};
}
ZEROMERGE_DEVICE Pair widen2_bf16(std::uint32_t w) {
  return {__uint_as_float(w << 16), __uint_as_float(w & 0xffff0000u)};
}
// A conversion instruction runs at a quarter of the rate of an addition or less, so the byte (made unsigned
// by flipping its sign) becomes the last one of 2^23 + byte, from which 2^23 + 128 is taken.
ZEROMERGE_DEVICE Quad widen4_q8(std::uint32_t w) {
  const auto byte = [flipped = w ^ 0x80808080u](unsigned i) {
    return __uint_as_float(__byte_perm(flipped, 0x4b000000u, 0x7540u | i)) - 8388736.0f;
  };
  return {byte(0), byte(1), byte(2), byte(3)};
}
// To the nearest, ties to even.
ZEROMERGE_DEVICE int round_to_int(float x) { return __float2int_rn(x); }

ZEROMERGE_DEVICE unsigned count_bits(std::uint32_t x) { return static_cast<unsigned>(__popc(x)); }

ZEROMERGE_DEVICE float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
ZEROMERGE_DEVICE float log2_fast(float x) { return __log2f(x); }
ZEROMERGE_DEVICE float sqrt_exact(float x) { return __fsqrt_rn(x); }

template <class S, class T>
ZEROMERGE_DEVICE T atomic_add(S s, std::size_t i, T v) {
  return atomicAdd(s.raw() + i, v);
}

}  // namespace zeromerge::cuda
