#include "support/calibrate.hpp"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <fstream>
#include <thread>

#include "support/pool.hpp"
#include "zeromerge/kernels/kernels.hpp"

namespace bench {
namespace {

using zeromerge::Isa;

#if defined(__x86_64__)
// Each body is compiled for its instructions; enough sums are in flight to hide the latency of one.
ZEROMERGE_REGION_BEGIN("avx2,fma")
float multiply_add_avx2(std::size_t rounds) {
  __m256 sum[12];
  for (auto& s : sum) s = _mm256_set1_ps(1.0f);
  const __m256 x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(0.001f);
  for (std::size_t i = 0; i < rounds; ++i) {
    ZEROMERGE_UNROLL
    for (auto& s : sum) {
      s = _mm256_fmadd_ps(s, x, y);
      asm volatile("" : "+x"(s));
    }
  }
  float total = 0.0f;
  for (const auto& s : sum) total += _mm256_cvtss_f32(s);
  return total;
}
ZEROMERGE_REGION_END

ZEROMERGE_REGION_BEGIN("avx512f")
float multiply_add_avx512(std::size_t rounds) {
  __m512 sum[12];
  for (auto& s : sum) s = _mm512_set1_ps(1.0f);
  const __m512 x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(0.001f);
  for (std::size_t i = 0; i < rounds; ++i) {
    ZEROMERGE_UNROLL
    for (auto& s : sum) {
      s = _mm512_fmadd_ps(s, x, y);
      asm volatile("" : "+v"(s));
    }
  }
  float total = 0.0f;
  for (const auto& s : sum) total += _mm512_cvtss_f32(s);
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

template <class Body>
double best_rate(std::size_t flops_per_round, const Body& body) {
  constexpr std::size_t kRounds = 200'000;
  double best = 0.0;
  for (int i = 0; i < 20; ++i) {
    const auto start = std::chrono::steady_clock::now();
    benchmark::DoNotOptimize(body(kRounds));
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
    best = std::max(best, static_cast<double>(flops_per_round * kRounds) / spent.count());
  }
  return best;
}

std::string cpu_name() {
  std::ifstream info("/proc/cpuinfo");
  std::string family, model, name = "unknown";
  for (std::string line; std::getline(info, line) && !line.empty();) {
    const std::string value = line.substr(std::min(line.size(), line.find(':') + 2));
    if (line.starts_with("model name")) name = value;
    if (line.starts_with("cpu family")) family = value;
    if (line.starts_with("model\t")) model = value;
  }
  return name + " (family " + family + ", model " + model + ")";
}

}  // namespace

double fma_peak() {
#if defined(__x86_64__)
  if (zeromerge::isa() >= Isa::avx512) return best_rate(12 * 16 * 2, multiply_add_avx512);
  if (zeromerge::isa() == Isa::avx2) return best_rate(12 * 8 * 2, multiply_add_avx2);
#endif
  return best_rate(8 * 4 * 2, multiply_add_portable);
}

Json describe_machine() {
  return {{"cpu", cpu_name()},
          {"cores", std::thread::hardware_concurrency()},
          {"kernels", zeromerge::cpu_features().text()},
          {"fma_peak_gflop_per_s", std::round(fma_peak() / 1e8) / 10}};
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
