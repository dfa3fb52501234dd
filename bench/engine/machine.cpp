#include "engine/machine.hpp"

#include "support/calibrate.hpp"

namespace bench {

Json machine_of(std::int32_t threads, std::int32_t prompt_threads) {
  Json machine = describe_machine();
  machine["threads"] = threads;
  machine["prompt_threads"] = prompt_threads;
  machine["llama_cpp"] = ZEROMERGE_LLAMA_BUILD;
  return machine;
}

}  // namespace bench
