// The kernels for every stored type, as one file of a program with ZEROMERGE_COMPILED holds them.
#pragma once

#include "zeromerge/kernels/cpu/levels.hpp"

#if defined(ZEROMERGE_COMPILED)
namespace zeromerge::kernels {

#define ZEROMERGE_INSTANTIATE(T)                                                                          \
  template void prepare<T>(float*, std::size_t, std::size_t, const KeyTiles<T>&);                         \
  template void logits<T>(const float*, std::size_t, std::size_t, const KeyTiles<T>&, std::size_t,        \
                          std::size_t, float*, std::size_t, const void*);                                 \
  template void weighted_sum<T>(const float*, std::size_t, std::size_t, const ValueRows<T>&, std::size_t, \
                                std::size_t, float*, const void*);                                        \
  template WideRows wide<T>(const KeyTiles<T>&);                                                          \
  template WideRows wide<T>(const ValueRows<T>&);
ZEROMERGE_INSTANTIATE(float)
ZEROMERGE_INSTANTIATE(f16)
ZEROMERGE_INSTANTIATE(bf16)
ZEROMERGE_INSTANTIATE(q8)
ZEROMERGE_INSTANTIATE(q4)
#undef ZEROMERGE_INSTANTIATE

#define ZEROMERGE_INSTANTIATE(T)                                \
  template void widen<T>(const T*, std::size_t, float, float*); \
  template void narrow<T>(const float*, std::size_t, T*);
ZEROMERGE_INSTANTIATE(float)
ZEROMERGE_INSTANTIATE(f16)
ZEROMERGE_INSTANTIATE(bf16)
#undef ZEROMERGE_INSTANTIATE

template std::uint16_t largest_magnitude<std::uint16_t>(const std::uint16_t*, std::size_t);
template std::uint32_t largest_magnitude<std::uint32_t>(const std::uint32_t*, std::size_t);

}  // namespace zeromerge::kernels
#endif
