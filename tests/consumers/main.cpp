// Exit status 0: the library, as this project found and compiled it, computes attention and keeps its budget.
#include <algorithm>
#include <cstdio>

#include "run_cache.hpp"

int main() {
  const std::vector<float> exact = textbook();
  const float full = largest_difference(run_full<float>(), exact);
  std::printf("full: differs by %g\n", static_cast<double>(full));
  if (!(full < 1e-4f)) return 1;

  std::size_t entries = 0;
  std::vector<float> small = run_zeromerge(64, &entries);
  // A prompt is answered exactly; what is kept of it afterwards is bounded.
  std::copy(exact.begin() + kPromptValues, exact.end(), small.begin() + kPromptValues);
  const float prompt = largest_difference(small, exact);
  std::printf("zeromerge: %zu entries, the prompt differs by %g\n", entries, static_cast<double>(prompt));
  return prompt < 1e-4f && entries <= 64 ? 0 : 2;
}
