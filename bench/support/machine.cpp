#include "support/machine.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <thread>

#include "support/calibrate.hpp"
#include "zeromerge/kernels/isa.hpp"

namespace bench {
namespace {

// A virtual machine's CPU may hide its name behind family and model.
std::string cpu_name() {
  std::ifstream info("/proc/cpuinfo");
  std::string family, model, name = "unknown";
  for (std::string line; std::getline(info, line) && !line.empty();) {
    const std::string value = line.substr(std::min(line.size(), line.find(':') + 2));
    if (line.starts_with("model name")) name = value;
    if (line.starts_with("cpu family")) family = value;
    if (line.starts_with("model\t")) model = value;
  }
  return name + " (family " + family + ", model " + model + ")";
}

double read_rate() {
  constexpr std::size_t kBytes = std::size_t{256} << 20;
  Reader reader(kBytes, 1, 1);
  double least = 1e9;
  for (int i = 0; i < 5; ++i) {
    const auto start = std::chrono::steady_clock::now();
    reader.step();
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
    least = std::min(least, spent.count());
  }
  return static_cast<double>(kBytes) / least;
}

double giga(double x) { return std::round(x / 1e8) / 10; }

}  // namespace

Json describe_machine() {
  return {{"cpu", cpu_name()},
          {"cores", std::thread::hardware_concurrency()},
          {"kernels", zeromerge::cpu_features().text()},
          {"fma_peak_gflop_per_s", giga(fma_peak())},
          {"read_gb_per_s", giga(read_rate())},
          {"llama_cpp", ZEROMERGE_LLAMA_BUILD}};
}

}  // namespace bench
