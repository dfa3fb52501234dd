// Exit status 0: files compiled with different -m flags compute the same in one program, at every level the
// CPU has.
#include <cstdio>

#include "../run_cache.hpp"

std::vector<float> plain_full();
std::vector<float> plain_half();
std::vector<float> plain_small(std::size_t* entries);
std::vector<float> plain_bytes();
std::vector<float> native_full();
std::vector<float> native_half();
std::vector<float> native_small(std::size_t* entries);
std::vector<float> native_bytes();

int main() {
  const std::vector<float> exact = textbook();
  for (const auto level : zeromerge::kIsaLevels) {
    if (level > zeromerge::detected_isa()) break;
    zeromerge::set_isa(level);
    const std::vector<float> plain = plain_full();
    const float wrong = largest_difference(plain, exact);
    const float full = largest_difference(native_full(), plain);
    const float half = largest_difference(native_half(), plain_half());
    const float bytes = largest_difference(native_bytes(), plain_bytes());
    std::size_t plain_entries = 0, native_entries = 0;
    const float small = largest_difference(native_small(&native_entries), plain_small(&plain_entries));
    std::printf("%s: wrong by %g, apart by full %g, half %g, bytes %g, small %g\n",
                zeromerge::isa_name(level), static_cast<double>(wrong), static_cast<double>(full),
                static_cast<double>(half), static_cast<double>(bytes), static_cast<double>(small));
    if (!(wrong < 1e-4f) || !(full < 1e-4f) || !(half < 1e-3f) || !(bytes < 1e-2f) || !(small < 1e-3f) ||
        plain_entries != native_entries)
      return 1;
  }
  return 0;
}
