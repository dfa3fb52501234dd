// All contenders at one context, each in its own process: filled one after the other, timed in turns, so that
// a machine that drifts favours none.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/child.hpp"
#include "engine/contenders.hpp"
#include "engine/options.hpp"

namespace bench {

struct Measured {
  const Contender* contender;
  nlohmann::json statistics;   // when the cache was full, before the first burst
  std::vector<double> speeds;  // tokens/s, one of each round
};

class Group {
 public:
  Group(const Options& options, const std::vector<Contender>& contenders, std::int32_t context,
        std::vector<std::int32_t> prompt, const generate::Scratch& scratch);

  // Throws std::runtime_error if a cache does not hold what it should, or does not go on as a cache.
  std::vector<Measured> run();

 private:
  struct Member {
    Child child;
    Measured measured;
  };
  void start(const Contender& contender);
  nlohmann::json request(const Contender& contender) const;
  void round(std::int32_t number);

  const Options& options_;
  const std::vector<Contender>& contenders_;
  std::int32_t context_;
  std::vector<std::int32_t> prompt_;
  const generate::Scratch& scratch_;
  std::vector<Member> members_;
};

}  // namespace bench
