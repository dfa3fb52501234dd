// make_cache() of the device, once for all tests.
#include "zeromerge/cuda/compiled.hpp"
