#include "engine/machine.hpp"

#include <fstream>
#include <string>
#include <thread>

#include "zeromerge/kernels/isa.hpp"

namespace bench {
namespace {

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "an unknown CPU";
}

}  // namespace

Json machine_of(std::int32_t threads, std::int32_t prompt_threads) {
  return {{"cpu", cpu_name()},
          {"cores", std::thread::hardware_concurrency()},
          {"threads", threads},
          {"prompt_threads", prompt_threads},
          {"kernels", zeromerge::cpu_features().text()},
          {"llama_cpp", ZEROMERGE_LLAMA_BUILD}};
}

}  // namespace bench
