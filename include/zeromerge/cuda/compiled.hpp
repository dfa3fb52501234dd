// What a program compiles once that defines ZEROMERGE_CUDA_COMPILED in all of its files: exactly one of them
// includes this. cuda::make_cache() with every policy and kernel is in that one, and the others compile in a
// fraction of the time.
#pragma once

#include "zeromerge/cuda/make_cache.hpp"

#if !defined(ZEROMERGE_CUDA_COMPILED)
#error "zeromerge/cuda/compiled.hpp is for programs that define ZEROMERGE_CUDA_COMPILED in all of their files"
#endif

namespace zeromerge::cuda {

template std::unique_ptr<AnyCache> make_cache<AnyCache>(const std::string&, const Geometry&,
                                                        const CacheOptions&);

}  // namespace zeromerge::cuda
