// Put before ggml's sources where GCC's own _tile_loadconfig tells the compiler of 8 of the 64 bytes that the
// instruction reads, so that most of the configuration is never written (GCC bug 114098, mended in 13.3).
#pragma once

#ifdef __AMX_TILE__
#include <immintrin.h>
#define _tile_loadconfig(config) \
  __asm__ volatile("ldtilecfg\t%X0" : : "m"(*(const char(*)[64])(const void*)(config)))
#endif
