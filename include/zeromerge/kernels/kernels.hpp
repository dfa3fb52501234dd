// The hot loops: one body per algorithm (cpu/*.inl), compiled once per instruction set, chosen at run time
// once per call (cpu/levels.hpp). Nothing here allocates or throws. Arrays that kernels read in whole vectors
// are padded to 16 elements by their owners; what pads them is never NaN.
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
  float* rows;     // [count][q_stride]
  float* logits;   // [kRowBlock][kKeyBlock]
  float* maximum;  // [kRowBlock]
  float* sum;      // [kRowBlock]
  float* factor;   // [kRowBlock]
  float* strip;    // with column statistics: [count][strip_stride]
  std::size_t strip_stride;
  float* local = nullptr;  // [kRowBlock]: wanted are the local sums of QueryRows
};

// Keys or values that a prefill widens block by block to panels of 16 columns, see cpu/widen.inl.
struct WideRows {
  const void* rows;  // KeyTiles or ValueRows
  void (*widen)(const void* rows, std::size_t first, std::size_t count, float* wide);
  std::size_t size;
  bool f32;  // stored so: multiplied as exactly
};

// Keys of a head made ready by make_panels() for a pass that goes through many small blocks of rows.
struct KeyPanels {
  const float* panels;  // [entries padded to 16][panel_depth(size)], in the level's form
  std::size_t size;
  bool f32;  // as in WideRows
};
constexpr std::size_t panel_depth(std::size_t size) noexcept { return round_up(size, 32); }

// For a pass that asks for probabilities or sums alone: attend_rows leaves maximum (log 2) and sum in its
// scratch.
inline void widen_nothing(const void*, std::size_t, std::size_t, float*) noexcept {}
inline WideRows no_values() noexcept { return {nullptr, widen_nothing, 0, false}; }

// What a column of attention probabilities is reduced to.
enum class ColumnStatistic { sum, maximum };

inline namespace ZEROMERGE_BUILT {

// See cpu/decode.inl.
template <class T>
void prepare(float* rows, std::size_t stride, std::size_t count, const KeyTiles<T>& keys);
template <class T>
void logits(const float* q, std::size_t q_stride, std::size_t group, const KeyTiles<T>& keys,
            std::size_t first, std::size_t tiles, float* out, std::size_t out_stride, const void* ahead);
ZEROMERGE_CPU_KERNEL float exponentials(float* logits, std::size_t n, const float* scale, float softcap,
                                        const float* bias, float& maximum);
template <class T>
void weighted_sum(const float* p, std::size_t p_stride, std::size_t group, const ValueRows<T>& values,
                  std::size_t first, std::size_t n, float* out, const void* ahead);

// See cpu/gemm.inl, widen.inl and prefill.inl.
ZEROMERGE_CPU_KERNEL void product(const float* a, std::size_t lda, const float* b, std::size_t panel,
                                  float* c, std::size_t ldc, std::size_t rows, std::size_t columns,
                                  std::size_t depth, bool accumulate);
template <class T>
WideRows wide(const KeyTiles<T>& keys);
template <class T>
WideRows wide(const ValueRows<T>& values);
ZEROMERGE_CPU_KERNEL void attend_rows(const PrefillRows& rows, const WideRows& keys, const WideRows& values,
                                      PrefillScratch scratch, float* out);
ZEROMERGE_CPU_KERNEL void attend_rows_with_columns(const PrefillRows& rows, const float* weight,
                                                   ColumnStatistic statistic, const WideRows& keys,
                                                   const WideRows& values, PrefillScratch scratch, float* out,
                                                   float* column);

// See cpu/column_maxima.inl.
ZEROMERGE_CPU_KERNEL void make_panels(const WideRows& keys, std::size_t entries, float* panels);
ZEROMERGE_CPU_KERNEL void column_maxima(const PrefillRows& rows, const KeyPanels& keys,
                                        PrefillScratch scratch, float* column);

// See cpu/elementwise.inl.
template <class T>
void widen(const T* from, std::size_t n, float factor, float* to);
template <class T>
void narrow(const float* from, std::size_t n, T* to);
ZEROMERGE_CPU_KERNEL void add_scaled(const float* part, float factor, std::size_t n, float* out, bool first);
ZEROMERGE_CPU_KERNEL void decay_and_add(float* score, std::size_t n, float decay, const float* p,
                                        std::size_t p_stride, const float* factor, std::size_t group);
ZEROMERGE_CPU_KERNEL float encode_q8(const float* x, std::size_t n, std::uint8_t* q);
ZEROMERGE_CPU_KERNEL void decode_q8(const std::uint8_t* q, std::size_t n, float scale, float* x);
ZEROMERGE_CPU_KERNEL std::size_t least(const float* x, std::size_t n);
template <class W>
W largest_magnitude(const W* x, std::size_t n);
ZEROMERGE_CPU_KERNEL float dot(const float* x, const float* y, std::size_t n);

// See cpu/int4_codec.inl.
ZEROMERGE_CPU_KERNEL void encode_q4_keys(const float* rows, std::size_t stride, std::size_t n,
                                         std::size_t dims, unsigned char* group);
ZEROMERGE_CPU_KERNEL void encode_q4_key(const float* k, std::size_t n, std::size_t dims, std::size_t entry,
                                        unsigned char* group);
ZEROMERGE_CPU_KERNEL void decode_q4_key(const unsigned char* group, std::size_t n, std::size_t dims,
                                        std::size_t entry, float* out);
ZEROMERGE_CPU_KERNEL void encode_q4_value(const float* v, std::size_t n, std::size_t row_size,
                                          std::size_t entry, unsigned char* tile);
ZEROMERGE_CPU_KERNEL void decode_q4_value(const unsigned char* tile, std::size_t n, std::size_t row_size,
                                          std::size_t entry, float* out);

}  // namespace ZEROMERGE_BUILT
}  // namespace zeromerge::kernels

#if !defined(ZEROMERGE_COMPILED)
#if defined(__CUDACC__)
#error "nvcc does not compile the CPU's kernels: define ZEROMERGE_COMPILED and link to zeromerge::compiled"
#endif
#include "zeromerge/kernels/cpu/levels.hpp"
#endif
