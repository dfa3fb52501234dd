// The kernels at every instruction set, and the choice among them. With ZEROMERGE_COMPILED only one file of a
// program includes this (zeromerge/compiled.hpp).
#pragma once

#include "zeromerge/kernels/cpu/region.hpp"
#include "zeromerge/kernels/kernels.hpp"

namespace zeromerge::kernels {

template <int N>
using Count = std::integral_constant<int, N>;

inline namespace ZEROMERGE_BUILT {

namespace portable {
#include "zeromerge/kernels/cpu/vec_portable.inl"
//
#include "zeromerge/kernels/cpu/products.inl"
//
#include "zeromerge/kernels/cpu/softcap.inl"
//
#include "zeromerge/kernels/cpu/decode.inl"
//
#include "zeromerge/kernels/cpu/convert_q8.inl"
#include "zeromerge/kernels/cpu/int4.inl"
//
#include "zeromerge/kernels/cpu/decode_int4.inl"
//
#include "zeromerge/kernels/cpu/elementwise.inl"
#include "zeromerge/kernels/cpu/int4_codec.inl"
//
#include "zeromerge/kernels/cpu/gemm.inl"
#include "zeromerge/kernels/cpu/gemm_plain.inl"
#include "zeromerge/kernels/cpu/widen.inl"
//
#include "zeromerge/kernels/cpu/block_logits.inl"
#include "zeromerge/kernels/cpu/prefill.inl"
//
#include "zeromerge/kernels/cpu/column_maxima.inl"
}  // namespace portable

#if defined(__x86_64__)
ZEROMERGE_REGION_BEGIN("avx2,fma,f16c")
namespace avx2 {
#include "zeromerge/kernels/cpu/vec_avx2.inl"
//
#include "zeromerge/kernels/cpu/products.inl"
//
#include "zeromerge/kernels/cpu/softcap.inl"
//
#include "zeromerge/kernels/cpu/decode.inl"
//
#include "zeromerge/kernels/cpu/convert_q8.inl"
#include "zeromerge/kernels/cpu/int4.inl"
//
#include "zeromerge/kernels/cpu/decode_int4.inl"
//
#include "zeromerge/kernels/cpu/elementwise.inl"
#include "zeromerge/kernels/cpu/int4_codec.inl"
//
#include "zeromerge/kernels/cpu/gemm.inl"
#include "zeromerge/kernels/cpu/gemm_plain.inl"
#include "zeromerge/kernels/cpu/widen.inl"
//
#include "zeromerge/kernels/cpu/block_logits.inl"
#include "zeromerge/kernels/cpu/prefill.inl"
//
#include "zeromerge/kernels/cpu/column_maxima.inl"
}  // namespace avx2
ZEROMERGE_REGION_END

ZEROMERGE_REGION_BEGIN("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")
namespace avx512 {
#include "zeromerge/kernels/cpu/vec_avx512.inl"
//
#include "zeromerge/kernels/cpu/products.inl"
//
#include "zeromerge/kernels/cpu/softcap.inl"
//
#include "zeromerge/kernels/cpu/decode.inl"
//
#include "zeromerge/kernels/cpu/convert_q8.inl"
#include "zeromerge/kernels/cpu/int4.inl"
//
#include "zeromerge/kernels/cpu/decode_int4.inl"
//
#include "zeromerge/kernels/cpu/elementwise.inl"
#include "zeromerge/kernels/cpu/int4_codec.inl"
//
#include "zeromerge/kernels/cpu/gemm.inl"
#include "zeromerge/kernels/cpu/gemm_plain.inl"
#include "zeromerge/kernels/cpu/widen.inl"
//
#include "zeromerge/kernels/cpu/block_logits.inl"
#include "zeromerge/kernels/cpu/prefill.inl"
//
#include "zeromerge/kernels/cpu/column_maxima.inl"
}  // namespace avx512
ZEROMERGE_REGION_END

// Only what these instructions change; the rest is AVX-512's.
ZEROMERGE_REGION_BEGIN("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
namespace avx512vnni {
#include "zeromerge/kernels/cpu/vec_avx512.inl"
//
#include "zeromerge/kernels/cpu/products.inl"
//
#include "zeromerge/kernels/cpu/softcap.inl"
//
#include "zeromerge/kernels/cpu/decode.inl"
#include "zeromerge/kernels/cpu/dot_q8.inl"
#include "zeromerge/kernels/cpu/int4_vnni.inl"
//
#include "zeromerge/kernels/cpu/decode_int4.inl"
}  // namespace avx512vnni
ZEROMERGE_REGION_END

ZEROMERGE_REGION_BEGIN("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16")
namespace avx512bf16 {
#include "zeromerge/kernels/cpu/vec_avx512.inl"
//
#include "zeromerge/kernels/cpu/products.inl"
//
#include "zeromerge/kernels/cpu/softcap.inl"
//
#include "zeromerge/kernels/cpu/decode.inl"
#include "zeromerge/kernels/cpu/gemm.inl"
//
#include "zeromerge/kernels/cpu/bf16_rows.inl"
#include "zeromerge/kernels/cpu/block_logits.inl"
#include "zeromerge/kernels/cpu/dot_bf16.inl"
#include "zeromerge/kernels/cpu/gemm_pairs.inl"
//
#include "zeromerge/kernels/cpu/column_maxima.inl"
}  // namespace avx512bf16
ZEROMERGE_REGION_END

ZEROMERGE_REGION_BEGIN(
    "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,amx-tile,amx-bf16")
namespace amx {
#include "zeromerge/kernels/cpu/vec_avx512.inl"
//
#include "zeromerge/kernels/cpu/products.inl"
//
#include "zeromerge/kernels/cpu/gemm.inl"
//
#include "zeromerge/kernels/cpu/bf16_rows.inl"
//
#include "zeromerge/kernels/cpu/gemm_tiles.inl"
#include "zeromerge/kernels/cpu/softcap.inl"
//
#include "zeromerge/kernels/cpu/block_logits.inl"
#include "zeromerge/kernels/cpu/prefill.inl"
//
#include "zeromerge/kernels/cpu/column_maxima.inl"
}  // namespace amx
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
// The best of all for a stored type: q8 and q4 have byte products, bf16 has those of bf16.
#define ZEROMERGE_DISPATCH_TYPE(T, ...)                           \
  if constexpr (std::is_same_v<T, q8> || std::is_same_v<T, q4>)   \
    if (isa() >= Isa::avx512vnni) return avx512vnni::__VA_ARGS__; \
  if constexpr (std::is_same_v<T, bf16>)                          \
    if (isa() >= Isa::avx512bf16) return avx512bf16::__VA_ARGS__; \
  ZEROMERGE_DISPATCH(__VA_ARGS__)
// Many rows at once: there are tiles for that, which are not exact enough for what is stored in f32.
#define ZEROMERGE_DISPATCH_ROWS(f32, ...)                   \
  if (isa() >= Isa::amx && !(f32)) return amx::__VA_ARGS__; \
  ZEROMERGE_DISPATCH(__VA_ARGS__)
// Many rows at once where rounding to bf16 does no harm.
#define ZEROMERGE_DISPATCH_COARSE(f32, ...)                               \
  if (isa() == Isa::avx512bf16 && !(f32)) return avx512bf16::__VA_ARGS__; \
  ZEROMERGE_DISPATCH_ROWS(f32, __VA_ARGS__)
#else
#define ZEROMERGE_DISPATCH(...) return portable::__VA_ARGS__;
#define ZEROMERGE_DISPATCH_COARSE(f32, ...) return portable::__VA_ARGS__;
#define ZEROMERGE_DISPATCH_ROWS(f32, ...) return portable::__VA_ARGS__;
#define ZEROMERGE_DISPATCH_TYPE(T, ...) return portable::__VA_ARGS__;
#endif

// See cpu/decode.inl.
template <class T>
void prepare(float* rows, std::size_t stride, std::size_t count, const KeyTiles<T>& keys) {
  ZEROMERGE_DISPATCH_TYPE(T, prepare<T>(rows, stride, count, keys.dims));
}
template <class T>
void logits(const float* q, std::size_t q_stride, std::size_t group, const KeyTiles<T>& keys,
            std::size_t first, std::size_t tiles, float* out, std::size_t out_stride, const void* ahead) {
  ZEROMERGE_DISPATCH_TYPE(T, logits<T>(q, q_stride, group, keys, first, tiles, out, out_stride, ahead));
}
ZEROMERGE_CPU_KERNEL float exponentials(float* logits, std::size_t n, const float* scale, float softcap,
                                        const float* bias, float& maximum) {
  ZEROMERGE_DISPATCH(exponentials(logits, n, scale, softcap, bias, maximum));
}
template <class T>
void weighted_sum(const float* p, std::size_t p_stride, std::size_t group, const ValueRows<T>& values,
                  std::size_t first, std::size_t n, float* out, const void* ahead) {
  ZEROMERGE_DISPATCH_TYPE(T, weighted_sum<T>(p, p_stride, group, values, first, n, out, ahead));
}

// See cpu/gemm.inl, widen.inl and prefill.inl.
ZEROMERGE_CPU_KERNEL void product(const float* a, std::size_t lda, const float* b, std::size_t panel,
                                  float* c, std::size_t ldc, std::size_t rows, std::size_t columns,
                                  std::size_t depth, bool accumulate) {
  ZEROMERGE_DISPATCH(product(a, lda, b, panel, c, ldc, rows, columns, depth, accumulate));
}
template <class T>
WideRows wide(const KeyTiles<T>& keys) {
  const auto widen = [] { ZEROMERGE_DISPATCH(widen_any_keys<T>); };
  return {&keys, widen(), keys.dims, std::is_same_v<T, float>};
}
template <class T>
WideRows wide(const ValueRows<T>& values) {
  const auto widen = [] { ZEROMERGE_DISPATCH(widen_any_values<T>); };
  return {&values, widen(), values.row_size, std::is_same_v<T, float>};
}
ZEROMERGE_CPU_KERNEL void attend_rows(const PrefillRows& rows, const WideRows& keys, const WideRows& values,
                                      PrefillScratch scratch, float* out) {
  ZEROMERGE_DISPATCH_ROWS(keys.f32 || values.f32, attend_rows(rows, keys, values, scratch, out));
}
ZEROMERGE_CPU_KERNEL void attend_rows_with_columns(const PrefillRows& rows, const float* weight,
                                                   ColumnStatistic statistic, const WideRows& keys,
                                                   const WideRows& values, PrefillScratch scratch, float* out,
                                                   float* column) {
  ZEROMERGE_DISPATCH_ROWS(keys.f32 || values.f32, attend_rows_with_columns(rows, weight, statistic, keys,
                                                                           values, scratch, out, column));
}

// See cpu/column_maxima.inl.
ZEROMERGE_CPU_KERNEL void make_panels(const WideRows& keys, std::size_t entries, float* panels) {
  ZEROMERGE_DISPATCH_COARSE(keys.f32, make_panels(keys, entries, panels));
}
ZEROMERGE_CPU_KERNEL void column_maxima(const PrefillRows& rows, const KeyPanels& keys,
                                        PrefillScratch scratch, float* column) {
  ZEROMERGE_DISPATCH_COARSE(keys.f32, column_maxima(rows, keys, scratch, column));
}

// See cpu/elementwise.inl.
template <class T>
void widen(const T* from, std::size_t n, float factor, float* to) {
  ZEROMERGE_DISPATCH(widen<T>(from, n, factor, to));
}
template <class T>
void narrow(const float* from, std::size_t n, T* to) {
  ZEROMERGE_DISPATCH(narrow<T>(from, n, to));
}
ZEROMERGE_CPU_KERNEL void add_scaled(const float* part, float factor, std::size_t n, float* out, bool first) {
  ZEROMERGE_DISPATCH(add_scaled(part, factor, n, out, first));
}
ZEROMERGE_CPU_KERNEL void decay_and_add(float* score, std::size_t n, float decay, const float* p,
                                        std::size_t p_stride, const float* factor, std::size_t group) {
  ZEROMERGE_DISPATCH(decay_and_add(score, n, decay, p, p_stride, factor, group));
}
ZEROMERGE_CPU_KERNEL float encode_q8(const float* x, std::size_t n, std::uint8_t* q) {
  ZEROMERGE_DISPATCH(encode_q8(x, n, q));
}
ZEROMERGE_CPU_KERNEL void decode_q8(const std::uint8_t* q, std::size_t n, float scale, float* x) {
  ZEROMERGE_DISPATCH(decode_q8(q, n, scale, x));
}
ZEROMERGE_CPU_KERNEL std::size_t least(const float* x, std::size_t n) { ZEROMERGE_DISPATCH(least(x, n)); }
template <class W>
W largest_magnitude(const W* x, std::size_t n) {
  ZEROMERGE_DISPATCH(largest_magnitude<W>(x, n));
}
ZEROMERGE_CPU_KERNEL float dot(const float* x, const float* y, std::size_t n) {
  ZEROMERGE_DISPATCH(dot(x, y, n));
}

// See cpu/int4_codec.inl.
ZEROMERGE_CPU_KERNEL void encode_q4_keys(const float* rows, std::size_t stride, std::size_t n,
                                         std::size_t dims, unsigned char* group) {
  ZEROMERGE_DISPATCH(encode_q4_keys(rows, stride, n, dims, group));
}
ZEROMERGE_CPU_KERNEL void encode_q4_key(const float* k, std::size_t n, std::size_t dims, std::size_t entry,
                                        unsigned char* group) {
  ZEROMERGE_DISPATCH(encode_q4_key(k, n, dims, entry, group));
}
ZEROMERGE_CPU_KERNEL void decode_q4_key(const unsigned char* group, std::size_t n, std::size_t dims,
                                        std::size_t entry, float* out) {
  ZEROMERGE_DISPATCH(decode_q4_key(group, n, dims, entry, out));
}
ZEROMERGE_CPU_KERNEL void encode_q4_value(const float* v, std::size_t n, std::size_t row_size,
                                          std::size_t entry, unsigned char* tile) {
  ZEROMERGE_DISPATCH(encode_q4_value(v, n, row_size, entry, tile));
}
ZEROMERGE_CPU_KERNEL void decode_q4_value(const unsigned char* tile, std::size_t n, std::size_t row_size,
                                          std::size_t entry, float* out) {
  ZEROMERGE_DISPATCH(decode_q4_value(tile, n, row_size, entry, out));
}

#undef ZEROMERGE_DISPATCH
#undef ZEROMERGE_DISPATCH_COARSE
#undef ZEROMERGE_DISPATCH_ROWS
#undef ZEROMERGE_DISPATCH_TYPE

}  // namespace ZEROMERGE_BUILT
}  // namespace zeromerge::kernels
