#include "../run_cache.hpp"

std::vector<float> plain_full() { return run_full<float>(); }
std::vector<float> plain_half() { return run_full<zeromerge::f16>(); }
std::vector<float> plain_small(std::size_t* entries) { return run_zeromerge(64, entries); }
std::vector<float> plain_bytes() { return run_full<zeromerge::q8>(); }
