// What a program compiles once that defines ZEROMERGE_COMPILED in all of its files: exactly one of them
// includes this. The others then take a fraction of the time to compile, for neither the kernels nor
// make_cache() are in them. (In CMake: link to zeromerge::compiled, which does both.)
#pragma once

#if !defined(ZEROMERGE_COMPILED)
#error "zeromerge/compiled.hpp is for programs that define ZEROMERGE_COMPILED in all of their files"
#endif

#include "zeromerge/cache/compiled.hpp"
#include "zeromerge/kernels/compiled.hpp"
