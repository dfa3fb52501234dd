#include "support/calibrate.hpp"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "support/pool.hpp"
#include "zeromerge/kernels/kernels.hpp"

namespace bench {
namespace {

using zeromerge::Isa;

#if defined(__x86_64__)
// Each body is compiled for its instructions, which are written out so that no compiler folds or spills them;
// enough sums are in flight to hide the latency of one.
ZEROMERGE_REGION_BEGIN("avx2,fma")
float multiply_add_avx2(std::size_t rounds) {
  __m256 sum[12];
  ZEROMERGE_UNROLL
  for (int k = 0; k < 12; ++k) sum[k] = _mm256_set1_ps(1.0f);
  const __m256 x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(0.001f);
  for (std::size_t i = 0; i < rounds; ++i) {
    ZEROMERGE_UNROLL
    for (int k = 0; k < 12; ++k) asm("vfmadd231ps %2, %1, %0" : "+x"(sum[k]) : "x"(x), "x"(y));
  }
  float total = 0.0f;
  ZEROMERGE_UNROLL
  for (int k = 0; k < 12; ++k) total += _mm256_cvtss_f32(sum[k]);
  return total;
}
ZEROMERGE_REGION_END

ZEROMERGE_REGION_BEGIN("avx512f")
float multiply_add_avx512(std::size_t rounds) {
  __m512 sum[12];
  ZEROMERGE_UNROLL
  for (int k = 0; k < 12; ++k) sum[k] = _mm512_set1_ps(1.0f);
  const __m512 x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(0.001f);
  for (std::size_t i = 0; i < rounds; ++i) {
    ZEROMERGE_UNROLL
    for (int k = 0; k < 12; ++k) asm("vfmadd231ps %2, %1, %0" : "+v"(sum[k]) : "v"(x), "v"(y));
  }
  float total = 0.0f;
  ZEROMERGE_UNROLL
  for (int k = 0; k < 12; ++k) total += _mm512_cvtss_f32(sum[k]);
  return total;
}
template <int G>
float convert_and_multiply_avx512(std::size_t rounds) {
  constexpr int kVectors = 12 / G;
  alignas(64) static const unsigned char stored[2048] = {};
  __m512 sum[kVectors][G], factor[G];
  ZEROMERGE_UNROLL
  for (int g = 0; g < G; ++g) {
    factor[g] = _mm512_set1_ps(0.5f);
    ZEROMERGE_UNROLL
    for (int v = 0; v < kVectors; ++v) sum[v][g] = _mm512_setzero_ps();
  }
  for (std::size_t i = 0; i < rounds; ++i) {
    const unsigned char* at = stored + i % 2 * 1024;
    ZEROMERGE_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      __m512 x;
      asm volatile("vcvtph2ps %1, %0" : "=v"(x) : "m"(*reinterpret_cast<const __m256i*>(at + v * 32)));
      ZEROMERGE_UNROLL
      for (int g = 0; g < G; ++g) asm("vfmadd231ps %2, %1, %0" : "+v"(sum[v][g]) : "v"(x), "v"(factor[g]));
    }
  }
  float total = 0.0f;
  ZEROMERGE_UNROLL
  for (int g = 0; g < G; ++g) {
    ZEROMERGE_UNROLL
    for (int v = 0; v < kVectors; ++v) total += _mm512_cvtss_f32(sum[v][g]);
  }
  return total;
}
void read_avx512(const char* data, std::size_t bytes, std::size_t ahead) {
  __m512i sum[8] = {};
  for (std::size_t i = 0; i + 512 <= bytes; i += 512) {
    ZEROMERGE_UNROLL
    for (std::size_t k = 0; k < 8; ++k) {
      __builtin_prefetch(data + i + k * 64 + ahead, 0, 2);
      sum[k] = _mm512_add_epi32(sum[k], _mm512_loadu_si512(data + i + k * 64));
    }
  }
  for (auto& s : sum) asm volatile("" : "+v"(s));
}
ZEROMERGE_REGION_END
#endif

float multiply_add_portable(std::size_t rounds) {
  typedef float Four __attribute__((vector_size(16)));
  Four sum[8];
  for (auto& s : sum) s = Four{1.0f, 1.0f, 1.0f, 1.0f};
  const Four x = {0.999f, 0.999f, 0.999f, 0.999f}, y = {0.001f, 0.001f, 0.001f, 0.001f};
  for (std::size_t i = 0; i < rounds; ++i)
    for (auto& s : sum) s = s * x + y;
  float total = 0.0f;
  for (const auto& s : sum) total += s[0];
  return total;
}

void read_portable(const char* data, std::size_t bytes, std::size_t ahead) {
  typedef int Four __attribute__((vector_size(16), aligned(16), may_alias));
  Four sum[8] = {};
  for (std::size_t i = 0; i + 128 <= bytes; i += 128) {
    __builtin_prefetch(data + i + ahead, 0, 2);
    __builtin_prefetch(data + i + 64 + ahead, 0, 2);
    for (std::size_t k = 0; k < 8; ++k) sum[k] += *reinterpret_cast<const Four*>(data + i + k * 16);
  }
  for (auto& s : sum) benchmark::DoNotOptimize(s);
}

void read(const char* data, std::size_t bytes, std::size_t ahead) {
#if defined(__x86_64__)
  if (zeromerge::isa() >= Isa::avx512) return read_avx512(data, bytes, ahead);
#endif
  read_portable(data, bytes, ahead);
}

// The loop of multiply-adds for the kernels' instructions, and what a round of it computes.
struct Loop {
  float (*run)(std::size_t rounds);
  double flops;
};
Loop multiply_add_loop() {
#if defined(__x86_64__)
  if (zeromerge::isa() >= Isa::avx512) return {multiply_add_avx512, 12 * 16 * 2};
  if (zeromerge::isa() == Isa::avx2) return {multiply_add_avx2, 12 * 8 * 2};
#endif
  return {multiply_add_portable, 8 * 4 * 2};
}

template <class Body>
double least_seconds(int times, const Body& body) {
  double least = 1e9;
  for (int i = 0; i < times; ++i) {
    const auto start = std::chrono::steady_clock::now();
    body();
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
    least = std::min(least, spent.count());
  }
  return least;
}

}  // namespace

double fma_peak() {
  constexpr std::size_t kRounds = 200'000;
  const Loop loop = multiply_add_loop();
  return loop.flops * kRounds / least_seconds(20, [&] { benchmark::DoNotOptimize(loop.run(kRounds)); });
}

namespace {
constexpr std::size_t kArithmeticRounds = 40'000;
}

void Arithmetic::step() const {
  const Loop loop = multiply_add_loop();
  executor_of(threads_)(threads_,
                        [&](std::size_t) { benchmark::DoNotOptimize(loop.run(kArithmeticRounds)); });
}

double Arithmetic::flops() const {
  return multiply_add_loop().flops * static_cast<double>(kArithmeticRounds * threads_);
}

ConvertedArithmetic::ConvertedArithmetic(std::size_t group, std::size_t threads)
    : run_(multiply_add_loop().run), round_flops_(multiply_add_loop().flops), threads_(threads) {
#if defined(__x86_64__)
  if (zeromerge::isa() < Isa::avx512) return;
  round_flops_ = 12 * 16 * 2;  // of any group: twelve sums
  run_ = group == 1   ? convert_and_multiply_avx512<1>
         : group == 2 ? convert_and_multiply_avx512<2>
         : group == 3 ? convert_and_multiply_avx512<3>
                      : convert_and_multiply_avx512<4>;
#else
  (void)group;
#endif
}

void ConvertedArithmetic::step() const {
  executor_of(threads_)(threads_, [&](std::size_t) { benchmark::DoNotOptimize(run_(kArithmeticRounds)); });
}

double ConvertedArithmetic::flops() const {
  return round_flops_ * static_cast<double>(kArithmeticRounds * threads_);
}

Reader::Reader(std::size_t bytes, std::size_t parts, std::size_t threads)
    : bytes_(bytes / 512 * 512), threads_(threads) {
  for (std::size_t i = 0; i < parts; ++i) {
    parts_.emplace_back(bytes_ + 512);
    std::memset(parts_.back().data(), 1, bytes_);
  }
}

void Reader::step() {
  // Far enough ahead to keep memory busy; in a cache the hardware is ahead by itself and this costs little.
  constexpr std::size_t kAhead = 4096;
  const char* data = parts_[next_].data();
  next_ = (next_ + 1) % parts_.size();
  const std::size_t share = bytes_ / threads_ / 512 * 512;
  executor_of(threads_)(threads_, [&](std::size_t t) { read(data + t * share, share, kAhead); });
}

}  // namespace bench
