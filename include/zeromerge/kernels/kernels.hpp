// The hot loops: one body per algorithm (cpu/*.inl), compiled once per instruction set, chosen at run time
// once per call. Nothing here allocates or throws. Arrays that kernels read in whole vectors are padded to 16
// elements by their owners.
#pragma once

#include "zeromerge/kernels/cpu/region.hpp"

namespace zeromerge::kernels {

inline constexpr std::size_t kKeyBlock = 64;  // entries of a block in prefill
inline constexpr std::size_t kRowBlock = 96;  // query rows of a block in prefill, at most
inline constexpr std::size_t kSegment =
    256;  // entries of a decode segment; a constant, so results never depend on threads

// Keys of one head: `tiles` of tile_size elements each, head_dim rounded up to 2 * pairs; bias padded to
// whole tiles, or null where no entry has one.
template <class T>
struct KeysOf {
  const T* tiles;
  std::size_t tile_size;
  std::size_t pairs;
  const float* bias;
};

// Query rows, scaled, stacked; row r sees the entries below limit[r].
struct PrefillRows {
  const float* q;
  std::size_t q_stride;
  std::size_t count;
  const std::size_t* limit;  // [count], each at least 1
};

// What a block of rows needs beside its output, in floats.
struct PrefillScratch {
  float* wide;     // [max(2 * pairs, row_size)][kKeyBlock]
  float* logits;   // [kRowBlock][kKeyBlock]
  float* maximum;  // [kRowBlock]
  float* sum;      // [kRowBlock]
};

inline namespace ZEROMERGE_BUILT {

namespace portable {
#include "zeromerge/kernels/cpu/vec_portable.inl"
//
#include "zeromerge/kernels/cpu/decode.inl"
#include "zeromerge/kernels/cpu/elementwise.inl"
#include "zeromerge/kernels/cpu/prefill.inl"
}  // namespace portable

#if defined(__x86_64__)
ZEROMERGE_REGION_BEGIN("avx2,fma,f16c")
namespace avx2 {
#include "zeromerge/kernels/cpu/vec_avx2.inl"
//
#include "zeromerge/kernels/cpu/decode.inl"
#include "zeromerge/kernels/cpu/elementwise.inl"
#include "zeromerge/kernels/cpu/prefill.inl"
}  // namespace avx2
ZEROMERGE_REGION_END

ZEROMERGE_REGION_BEGIN("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")
namespace avx512 {
#include "zeromerge/kernels/cpu/vec_avx512.inl"
//
#include "zeromerge/kernels/cpu/decode.inl"
#include "zeromerge/kernels/cpu/elementwise.inl"
#include "zeromerge/kernels/cpu/prefill.inl"
}  // namespace avx512
ZEROMERGE_REGION_END
#define ZEROMERGE_DISPATCH(...)     \
  switch (isa()) {                  \
    case Isa::avx512:               \
      return avx512::__VA_ARGS__;   \
    case Isa::avx2:                 \
      return avx2::__VA_ARGS__;     \
    default:                        \
      return portable::__VA_ARGS__; \
  }
#else
#define ZEROMERGE_DISPATCH(...) return portable::__VA_ARGS__;
#endif

// See cpu/decode.inl.
template <class T>
void logits(const float* q, std::size_t q_stride, std::size_t group, const T* keys, std::size_t tile_size,
            std::size_t pairs, const float* bias, std::size_t tiles, float* out, std::size_t out_stride) {
  ZEROMERGE_DISPATCH(logits<T>(q, q_stride, group, keys, tile_size, pairs, bias, tiles, out, out_stride))
}
inline float exponentials(float* logits, std::size_t n, float& maximum) {
  ZEROMERGE_DISPATCH(exponentials(logits, n, maximum))
}
template <class T>
void weighted_sum(const float* p, std::size_t p_stride, std::size_t group, const T* values,
                  std::size_t row_size, std::size_t n, float* out) {
  ZEROMERGE_DISPATCH(weighted_sum<T>(p, p_stride, group, values, row_size, n, out))
}

// See cpu/prefill.inl.
inline void product(const float* a, std::size_t lda, const float* b, std::size_t ldb, float* c,
                    std::size_t ldc, std::size_t rows, std::size_t columns, std::size_t depth,
                    bool accumulate) {
  ZEROMERGE_DISPATCH(product(a, lda, b, ldb, c, ldc, rows, columns, depth, accumulate))
}
template <class K, class V>
void attend_rows(const PrefillRows& rows, const KeysOf<K>& keys, const V* values, std::size_t row_size,
                 float softcap, PrefillScratch scratch, float* out, float* lse) {
  ZEROMERGE_DISPATCH(attend_rows<K, V>(rows, keys, values, row_size, softcap, scratch, out, lse))
}
template <class K>
void column_mass(const PrefillRows& rows, const float* weight, const float* lse, const KeysOf<K>& keys,
                 std::size_t first, std::size_t columns, float softcap, PrefillScratch scratch,
                 float* column) {
  ZEROMERGE_DISPATCH(column_mass<K>(rows, weight, lse, keys, first, columns, softcap, scratch, column))
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
inline float dot(const float* x, const float* y, std::size_t n) { ZEROMERGE_DISPATCH(dot(x, y, n)) }

#undef ZEROMERGE_DISPATCH

}  // namespace ZEROMERGE_BUILT
}  // namespace zeromerge::kernels
