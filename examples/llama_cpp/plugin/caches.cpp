#include "caches.hpp"

#include "zeromerge/cache/presets.hpp"

namespace zeromerge::plugin {

std::unique_ptr<AnyCache> new_cache(const std::string& spec, const Geometry& geometry, CacheOptions options) {
  return make_cache(spec, geometry, std::move(options));
}

}  // namespace zeromerge::plugin
