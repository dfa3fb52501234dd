// make_cache() with every policy it knows, as one file of a program with ZEROMERGE_COMPILED holds it.
#pragma once

#include "zeromerge/cache/presets.hpp"

#if defined(ZEROMERGE_COMPILED)
namespace zeromerge {

template std::unique_ptr<AnyCache> make_cache<AnyCache>(const std::string&, const Geometry&, CacheOptions);

}  // namespace zeromerge
#endif
