// Runs a test at every instruction set level that this CPU has.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "zeromerge/kernels/isa.hpp"

namespace zeromerge::test {

inline std::vector<Isa> available_isas() {
  std::vector<Isa> levels;
  for (const Isa level : kIsaLevels)
    if (level <= detected_isa()) levels.push_back(level);
  return levels;
}

// Uses a level until the end of the scope.
class IsaScope {
 public:
  explicit IsaScope(Isa level) : before_(isa()) { set_isa(level); }
  ~IsaScope() { set_isa(before_); }
  IsaScope(const IsaScope&) = delete;
  IsaScope& operator=(const IsaScope&) = delete;

 private:
  Isa before_;
};

// A fixture whose tests run once per level.
class EachIsa : public testing::TestWithParam<Isa> {
 private:
  IsaScope scope_{GetParam()};
};

inline std::string isa_of(const testing::TestParamInfo<Isa>& info) { return isa_name(info.param); }

}  // namespace zeromerge::test
