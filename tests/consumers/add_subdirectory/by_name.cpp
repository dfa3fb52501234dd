// Exit status 0: caches whose policy is chosen at run time work too; with all their compositions instantiated
// here.
#include <cstdio>

#include "../run_cache.hpp"

int main() {
  const auto full = zeromerge::make_cache("full:storage=f32", kGeometry);
  if (!(largest_difference(run_cache(*full), textbook()) < 1e-4f)) return 1;

  const auto small = zeromerge::make_cache("zeromerge:budget=64", kGeometry);
  (void)run_cache(*small);
  const std::size_t entries = small->layer(0).entries(0);
  std::printf("%s: %zu entries, %zu bytes; full: %zu bytes\n", small->spec().c_str(), entries,
              small->bytes().held, full->bytes().held);
  return entries <= 64 && small->bytes().held < full->bytes().held ? 0 : 2;
}
