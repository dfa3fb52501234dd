// Which instruction set the kernels use: detected once from the CPU, lowered by the environment variable
// ZEROMERGE_ISA=portable|avx2|avx512|avx512vnni|avx512bf16|amx or by set_isa() (tests run every level the CPU
// has). Each level includes those before it. A wish that is no level of the CPU changes nothing and is shown
// by cpu_features().
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <iterator>
#include <string>
#include <string_view>

#include "zeromerge/core/errors.hpp"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace zeromerge {

enum class Isa : int {
  portable = 0,    // SSE2 on x86-64, NEON on aarch64, by the compiler's own vectors
  avx2 = 1,        // AVX2, FMA, F16C
  avx512 = 2,      // AVX-512 F, BW, DQ, VL
  avx512vnni = 3,  // and dot products of bytes
  avx512bf16 = 4,  // and dot products of bf16
  amx = 5          // and products of bf16 tiles (AMX)
};
inline constexpr Isa kIsaLevels[] = {Isa::portable,   Isa::avx2,       Isa::avx512,
                                     Isa::avx512vnni, Isa::avx512bf16, Isa::amx};

constexpr const char* isa_name(Isa isa) noexcept {
  constexpr const char* names[] = {"portable", "avx2", "avx512", "avx512vnni", "avx512bf16", "amx"};
  const auto i = static_cast<std::size_t>(isa);
  return i < std::size(names) ? names[i] : "unknown level";
}

namespace detail {

// Whether the CPU has tiles of bf16 and the system lets this process use them, which has to be asked for.
inline bool may_use_tiles() noexcept {
#if defined(__x86_64__) && defined(__linux__)
  static const bool may = [] {
    unsigned a = 0, b = 0, c = 0, d = 0;
    constexpr unsigned kTilesOfBf16 = 1u << 24 | 1u << 22;  // AMX-TILE, AMX-BF16
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kTilesOfBf16) != kTilesOfBf16) return false;
    constexpr long kRequest = 0x1023;  // ARCH_REQ_XCOMP_PERM
    constexpr long kTileData = 18;     // the state component
    return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
  }();
  return may;
#else
  return false;
#endif
}

}  // namespace detail

// The best level this CPU has.
inline Isa detected_isa() noexcept {
#if defined(__x86_64__)
  __builtin_cpu_init();
  // F16C has no name in every compiler's list; every CPU with AVX2 and FMA has it.
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return Isa::portable;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl"))
    return Isa::avx2;
  if (!__builtin_cpu_supports("avx512vnni")) return Isa::avx512;
  if (!__builtin_cpu_supports("avx512bf16")) return Isa::avx512vnni;
  return detail::may_use_tiles() ? Isa::amx : Isa::avx512bf16;
#else
  return Isa::portable;
#endif
}

namespace detail {

// What the environment asks for: a level this CPU has, else the best and in `refused` the wish.
struct WishedIsa {
  Isa level;
  const char* refused = nullptr;
};
inline WishedIsa isa_from_environment() noexcept {
  const Isa best = detected_isa();
  const char* wish = std::getenv("ZEROMERGE_ISA");
  if (wish == nullptr || *wish == '\0') return {best};
  for (const Isa isa : kIsaLevels)
    if (std::string_view(wish) == isa_name(isa) && isa <= best) return {isa};
  return {best, wish};
}

inline std::atomic<Isa>& current_isa() noexcept {
  static std::atomic<Isa> current{isa_from_environment().level};
  return current;
}

}  // namespace detail

// The level in use.
inline Isa isa() noexcept { return detail::current_isa().load(std::memory_order_relaxed); }

// Uses this level from now on. Throws Error if the CPU lacks it.
inline void set_isa(Isa level) {
  if (level > detected_isa())
    fail("set_isa: this CPU has no ", isa_name(level), "; its best level is ", isa_name(detected_isa()));
  detail::current_isa().store(level, std::memory_order_relaxed);
}

// What the kernels use of this CPU, and what it would have.
struct CpuFeatures {
  Isa used;
  Isa detected;
  bool avx2;            // with FMA and F16C
  bool avx512;          // F, BW, DQ, VL
  bool vnni;            // byte dot products: q8 and q4
  bool bf16;            // bf16 dot products: bf16
  bool tiles;           // tiles of bf16: prompts
  const char* refused;  // what ZEROMERGE_ISA asks for, if that is no level of this CPU; else null

  // For example "amx", "avx2 (of avx512bf16)" or "avx2 (ZEROMERGE_ISA=avx512 is no level of this
  // CPU)".
  std::string text() const {
    std::string name = isa_name(used);
    if (used != detected) name += std::string(" (of ") + isa_name(detected) + ")";
    if (refused != nullptr) name += std::string(" (ZEROMERGE_ISA=") + refused + " is no level of this CPU)";
    return name;
  }
};

inline CpuFeatures cpu_features() noexcept {
  const Isa used = isa();
  return {used,
          detected_isa(),
          used >= Isa::avx2,
          used >= Isa::avx512,
          used >= Isa::avx512vnni,
          used >= Isa::avx512bf16,
          used >= Isa::amx,
          detail::isa_from_environment().refused};
}

}  // namespace zeromerge
