// Where the library's compositions are compiled: once for the plug-in.
#pragma once

#include <memory>
#include <string>

#include "zeromerge/cache/any_cache.hpp"

namespace zeromerge::plugin {

// See make_cache.
std::unique_ptr<AnyCache> new_cache(const std::string& spec, const Geometry& geometry, CacheOptions options);

}  // namespace zeromerge::plugin
