// Target regions: functions between ZEROMERGE_REGION_BEGIN("avx2,fma,f16c") and ZEROMERGE_REGION_END may use
// those instructions whatever the command line says. Every header a kernel needs is included before the first
// region opens.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "zeromerge/core/element.hpp"
#include "zeromerge/core/geometry.hpp"
#include "zeromerge/kernels/isa.hpp"
#include "zeromerge/kernels/layout.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace zeromerge::kernels {

// Whether a number that several instructions multiply with is better broadcast to a register once. On Intel's
// cores a broadcast inside of an instruction takes one of two loads a cycle, as many as there are
// multiply-adds; Zen 4 has half the multiply-adds and broadcasts with the units that also convert.
inline bool plain_broadcasts() noexcept {
#if defined(__x86_64__)
  static const bool intel = (__builtin_cpu_init(), __builtin_cpu_is("intel") != 0);
  return intel;
#else
  return false;
#endif
}

}  // namespace zeromerge::kernels

#define ZEROMERGE_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define ZEROMERGE_REGION_BEGIN(features) \
  ZEROMERGE_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define ZEROMERGE_REGION_END ZEROMERGE_PRAGMA(clang attribute pop)
#else
#define ZEROMERGE_REGION_BEGIN(features) \
  ZEROMERGE_PRAGMA(GCC push_options) ZEROMERGE_PRAGMA(GCC target(features))
#define ZEROMERGE_REGION_END ZEROMERGE_PRAGMA(GCC pop_options)
#endif
// Loops over registers. A build that checks every access defines this as nothing: unrolled, they take minutes
// to compile there.
#if !defined(ZEROMERGE_UNROLL)
#if defined(__clang__)
#define ZEROMERGE_UNROLL ZEROMERGE_PRAGMA(clang loop unroll(full))
#else
#define ZEROMERGE_UNROLL ZEROMERGE_PRAGMA(GCC unroll 16)
#endif
#endif
#define ZEROMERGE_INLINE inline __attribute__((always_inline))

// Translation units compiled for different CPUs emit different code for the same inline function, and the
// linker keeps any of them. Kernels therefore live in a namespace named after what the command line allows.
// Compiled once for a whole program (ZEROMERGE_COMPILED) they are plain functions under one name.
#if defined(ZEROMERGE_COMPILED)
#define ZEROMERGE_CPU_KERNEL
#define ZEROMERGE_BUILT compiled
#else
#define ZEROMERGE_CPU_KERNEL inline
#if defined(__FAST_MATH__)
#define ZEROMERGE_BUILT_MATH fast
#else
#define ZEROMERGE_BUILT_MATH strict
#endif
#if defined(__AVX512FP16__)
#define ZEROMERGE_BUILT_CPU avx512fp16
#elif defined(__AVX512BF16__)
#define ZEROMERGE_BUILT_CPU avx512bf16
#elif defined(__AVX512VNNI__)
#define ZEROMERGE_BUILT_CPU avx512vnni
#elif defined(__AVX512F__)
#define ZEROMERGE_BUILT_CPU avx512
#elif defined(__AVX2__)
#define ZEROMERGE_BUILT_CPU avx2
#else
#define ZEROMERGE_BUILT_CPU base
#endif
#define ZEROMERGE_JOIN_(a, b, c) a##_##b##_##c
#define ZEROMERGE_JOIN(a, b, c) ZEROMERGE_JOIN_(a, b, c)
#define ZEROMERGE_BUILT ZEROMERGE_JOIN(built, ZEROMERGE_BUILT_CPU, ZEROMERGE_BUILT_MATH)
#endif
