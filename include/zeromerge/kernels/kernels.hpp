// The hot loops: one body per algorithm (cpu/*.inl), compiled once per instruction set, chosen at run time
// once per call. Nothing here allocates or throws. Arrays that kernels read in whole vectors are padded to 16
// elements by their owners; what pads them is never NaN.
#pragma once

#include "zeromerge/kernels/cpu/region.hpp"

namespace zeromerge::kernels {

// Query rows, scaled by kLog2E times the attention scale, stacked; row r sees the entries below limit[r].
struct PrefillRows {
  const float* q;
  std::size_t q_stride;
  std::size_t count;         // at most kRowBlock
  const std::size_t* limit;  // [count], rising, each at least 1
  const float* bias;         // of entries, padded to 16, or null
  const float* sink;         // [count] in units of log 2: takes part in the softmax without a value; or null
  float softcap;             // 0: none
};

// What a block of rows needs beside its output, in floats.
struct PrefillScratch {
  float* wide;     // [max(dims, row_size)][kKeyBlock]
  float* logits;   // [kRowBlock][kKeyBlock]
  float* maximum;  // [kRowBlock]
  float* sum;      // [kRowBlock]
  float* factor;   // [kRowBlock]
  float* strip;    // with column statistics: [count][strip_stride]
  std::size_t strip_stride;
};

// Keys or values that a prefill widens block by block to panels of 16 columns, see cpu/prefill.inl.
struct WideRows {
  const void* rows;  // KeyTiles or ValueRows
  void (*widen)(const void* rows, std::size_t first, std::size_t count, float* wide);
  std::size_t size;
};

// What a column of attention probabilities is reduced to.
enum class ColumnStatistic { sum, maximum };

template <int N>
using Count = std::integral_constant<int, N>;

inline namespace ZEROMERGE_BUILT {

namespace portable {
#include "zeromerge/kernels/cpu/vec_portable.inl"
//
#include "zeromerge/kernels/cpu/products.inl"
//
#include "zeromerge/kernels/cpu/decode.inl"
//
#include "zeromerge/kernels/cpu/convert_q8.inl"
#include "zeromerge/kernels/cpu/int4.inl"
//
#include "zeromerge/kernels/cpu/decode_int4.inl"
//
#include "zeromerge/kernels/cpu/elementwise.inl"
#include "zeromerge/kernels/cpu/prefill.inl"
}  // namespace portable

#if defined(__x86_64__)
ZEROMERGE_REGION_BEGIN("avx2,fma,f16c")
namespace avx2 {
#include "zeromerge/kernels/cpu/vec_avx2.inl"
//
#include "zeromerge/kernels/cpu/products.inl"
//
#include "zeromerge/kernels/cpu/decode.inl"
//
#include "zeromerge/kernels/cpu/convert_q8.inl"
#include "zeromerge/kernels/cpu/int4.inl"
//
#include "zeromerge/kernels/cpu/decode_int4.inl"
//
#include "zeromerge/kernels/cpu/elementwise.inl"
#include "zeromerge/kernels/cpu/prefill.inl"
}  // namespace avx2
ZEROMERGE_REGION_END

ZEROMERGE_REGION_BEGIN("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")
namespace avx512 {
#include "zeromerge/kernels/cpu/vec_avx512.inl"
//
#include "zeromerge/kernels/cpu/products.inl"
//
#include "zeromerge/kernels/cpu/decode.inl"
//
#include "zeromerge/kernels/cpu/convert_q8.inl"
#include "zeromerge/kernels/cpu/int4.inl"
//
#include "zeromerge/kernels/cpu/decode_int4.inl"
//
#include "zeromerge/kernels/cpu/elementwise.inl"
#include "zeromerge/kernels/cpu/prefill.inl"
}  // namespace avx512
ZEROMERGE_REGION_END

// Only what these instructions change; the rest is AVX-512's.
ZEROMERGE_REGION_BEGIN("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
namespace avx512vnni {
#include "zeromerge/kernels/cpu/vec_avx512.inl"
//
#include "zeromerge/kernels/cpu/products.inl"
//
#include "zeromerge/kernels/cpu/decode.inl"
#include "zeromerge/kernels/cpu/dot_q8.inl"
}  // namespace avx512vnni
ZEROMERGE_REGION_END

ZEROMERGE_REGION_BEGIN("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16")
namespace avx512bf16 {
#include "zeromerge/kernels/cpu/vec_avx512.inl"
//
#include "zeromerge/kernels/cpu/products.inl"
//
#include "zeromerge/kernels/cpu/decode.inl"
#include "zeromerge/kernels/cpu/dot_bf16.inl"
#include "zeromerge/kernels/cpu/int4_bf16.inl"
//
#include "zeromerge/kernels/cpu/decode_int4.inl"
}  // namespace avx512bf16
ZEROMERGE_REGION_END

#define ZEROMERGE_DISPATCH(...)     \
  switch (isa()) {                  \
    case Isa::portable:             \
      return portable::__VA_ARGS__; \
    case Isa::avx2:                 \
      return avx2::__VA_ARGS__;     \
    default:                        \
      return avx512::__VA_ARGS__;   \
  }
// The best of all for a stored type: q8 has byte products, bf16 and q4 those of bf16.
#define ZEROMERGE_DISPATCH_TYPE(T, ...)                           \
  if constexpr (std::is_same_v<T, q8>)                            \
    if (isa() >= Isa::avx512vnni) return avx512vnni::__VA_ARGS__; \
  if constexpr (std::is_same_v<T, bf16> || std::is_same_v<T, q4>) \
    if (isa() >= Isa::avx512bf16) return avx512bf16::__VA_ARGS__; \
  ZEROMERGE_DISPATCH(__VA_ARGS__)
#else
#define ZEROMERGE_DISPATCH(...) return portable::__VA_ARGS__;
#define ZEROMERGE_DISPATCH_TYPE(T, ...) return portable::__VA_ARGS__;
#endif

// See cpu/decode.inl.
template <class T>
void prepare(float* rows, std::size_t stride, std::size_t count, const KeyTiles<T>& keys) {
  ZEROMERGE_DISPATCH_TYPE(T, prepare<T>(rows, stride, count, keys.dims))
}
template <class T>
void logits(const float* q, std::size_t q_stride, std::size_t group, const KeyTiles<T>& keys,
            std::size_t first, std::size_t tiles, float* out, std::size_t out_stride, const void* ahead) {
  ZEROMERGE_DISPATCH_TYPE(T, logits<T>(q, q_stride, group, keys, first, tiles, out, out_stride, ahead))
}
inline float exponentials(float* logits, std::size_t n, const float* scale, float softcap, const float* bias,
                          float& maximum) {
  ZEROMERGE_DISPATCH(exponentials(logits, n, scale, softcap, bias, maximum))
}
template <class T>
void weighted_sum(const float* p, std::size_t p_stride, std::size_t group, const ValueRows<T>& values,
                  std::size_t first, std::size_t n, float* out, const void* ahead) {
  ZEROMERGE_DISPATCH_TYPE(T, weighted_sum<T>(p, p_stride, group, values, first, n, out, ahead))
}

// See cpu/prefill.inl.
inline void product(const float* a, std::size_t lda, const float* b, std::size_t panel, float* c,
                    std::size_t ldc, std::size_t rows, std::size_t columns, std::size_t depth,
                    bool accumulate) {
  ZEROMERGE_DISPATCH(product(a, lda, b, panel, c, ldc, rows, columns, depth, accumulate))
}
template <class T>
WideRows wide(const KeyTiles<T>& keys) {
  const auto widen = [] { ZEROMERGE_DISPATCH(widen_any_keys<T>) };
  return {&keys, widen(), keys.dims};
}
template <class T>
WideRows wide(const ValueRows<T>& values) {
  const auto widen = [] { ZEROMERGE_DISPATCH(widen_any_values<T>) };
  return {&values, widen(), values.row_size};
}
inline void attend_rows(const PrefillRows& rows, const WideRows& keys, const WideRows& values,
                        PrefillScratch scratch, float* out) {
  ZEROMERGE_DISPATCH(attend_rows(rows, keys, values, scratch, out))
}
inline void attend_rows_with_columns(const PrefillRows& rows, const float* weight, ColumnStatistic statistic,
                                     const WideRows& keys, const WideRows& values, PrefillScratch scratch,
                                     float* out, float* column) {
  ZEROMERGE_DISPATCH(attend_rows_with_columns(rows, weight, statistic, keys, values, scratch, out, column))
}

// See cpu/elementwise.inl.
template <class T>
void widen(const T* from, std::size_t n, float factor, float* to) {
  ZEROMERGE_DISPATCH(widen<T>(from, n, factor, to))
}
template <class T>
void narrow(const float* from, std::size_t n, T* to) {
  ZEROMERGE_DISPATCH(narrow<T>(from, n, to))
}
inline void add_scaled(const float* part, float factor, std::size_t n, float* out, bool first) {
  ZEROMERGE_DISPATCH(add_scaled(part, factor, n, out, first))
}
inline void decay_and_add(float* score, std::size_t n, float decay, const float* p, std::size_t p_stride,
                          const float* factor, std::size_t group) {
  ZEROMERGE_DISPATCH(decay_and_add(score, n, decay, p, p_stride, factor, group))
}
inline float encode_q8(const float* x, std::size_t n, std::uint8_t* q) {
  ZEROMERGE_DISPATCH(encode_q8(x, n, q))
}
inline void decode_q8(const std::uint8_t* q, std::size_t n, float scale, float* x) {
  ZEROMERGE_DISPATCH(decode_q8(q, n, scale, x))
}
inline std::size_t least(const float* x, std::size_t n) { ZEROMERGE_DISPATCH(least(x, n)) }
template <class W>
W largest_magnitude(const W* x, std::size_t n) {
  ZEROMERGE_DISPATCH(largest_magnitude<W>(x, n))
}
inline float dot(const float* x, const float* y, std::size_t n) { ZEROMERGE_DISPATCH(dot(x, y, n)) }

#undef ZEROMERGE_DISPATCH
#undef ZEROMERGE_DISPATCH_TYPE

}  // namespace ZEROMERGE_BUILT
}  // namespace zeromerge::kernels
