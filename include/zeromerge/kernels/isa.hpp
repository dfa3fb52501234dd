// Which instruction set the kernels use: detected once from the CPU, lowered by the environment variable
// ZEROMERGE_ISA=portable|avx2|avx512 or by set_isa() (tests run every level the CPU has).
#pragma once

#include <atomic>
#include <cstdlib>
#include <string>
#include <string_view>

#include "zeromerge/core/errors.hpp"

namespace zeromerge {

enum class Isa : int { portable = 0, avx2 = 1, avx512 = 2 };

constexpr const char* isa_name(Isa isa) noexcept {
  return isa == Isa::avx512 ? "avx512" : isa == Isa::avx2 ? "avx2" : "portable";
}

// The best level this CPU has.
inline Isa detected_isa() noexcept {
#if defined(__x86_64__)
  __builtin_cpu_init();
  // F16C has no name in every compiler's list; every CPU with AVX2 and FMA has it.
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return avx512 ? Isa::avx512 : avx2 ? Isa::avx2 : Isa::portable;
#else
  return Isa::portable;
#endif
}

namespace detail {

inline Isa isa_from_environment() noexcept {
  const Isa best = detected_isa();
  const char* wish = std::getenv("ZEROMERGE_ISA");
  if (wish == nullptr) return best;
  for (const Isa isa : {Isa::portable, Isa::avx2, Isa::avx512})
    if (std::string_view(wish) == isa_name(isa) && isa <= best) return isa;
  return best;
}

inline std::atomic<Isa>& current_isa() noexcept {
  static std::atomic<Isa> current{isa_from_environment()};
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

}  // namespace zeromerge
