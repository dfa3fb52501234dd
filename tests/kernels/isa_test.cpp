#include "zeromerge/kernels/isa.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "support/isa.hpp"

namespace zeromerge {
namespace {

TEST(Isa, TheLevelInUseIsOneTheCpuHas) { EXPECT_LE(isa(), detected_isa()); }

TEST(Isa, ALevelCanBeSetAndIsUsed) {
  for (const Isa level : test::available_isas()) {
    const test::IsaScope scope(level);
    EXPECT_EQ(isa(), level);
  }
}

TEST(Isa, ALevelTheCpuLacksIsRefusedAndNothingChanges) {
  const Isa before = isa();
  EXPECT_THROW(set_isa(static_cast<Isa>(static_cast<int>(detected_isa()) + 1)), Error);
  EXPECT_EQ(isa(), before);
}

TEST(Isa, TheEnvironmentLowersTheLevelButNeverRaisesIt) {
  const char* before = std::getenv("ZEROMERGE_ISA");
  const std::string saved = before != nullptr ? before : "";
  for (const Isa level : test::available_isas()) {
    ASSERT_EQ(setenv("ZEROMERGE_ISA", isa_name(level), 1), 0);
    EXPECT_EQ(detail::isa_from_environment().level, level);
    EXPECT_EQ(cpu_features().refused, nullptr);
  }
  ASSERT_EQ(setenv("ZEROMERGE_ISA", "avx1024", 1), 0);
  EXPECT_EQ(detail::isa_from_environment().level, detected_isa());
  EXPECT_NE(cpu_features().text().find("ZEROMERGE_ISA=avx1024"), std::string::npos) << cpu_features().text();
  ASSERT_EQ(setenv("ZEROMERGE_ISA", "avx512", 1), 0);
  EXPECT_LE(detail::isa_from_environment().level, detected_isa());
  if (before != nullptr) {
    setenv("ZEROMERGE_ISA", saved.c_str(), 1);
  } else {
    unsetenv("ZEROMERGE_ISA");
  }
}

TEST(Isa, EveryLevelHasAName) {
  EXPECT_STREQ(isa_name(Isa::portable), "portable");
  EXPECT_STREQ(isa_name(Isa::avx2), "avx2");
  EXPECT_STREQ(isa_name(Isa::avx512), "avx512");
  EXPECT_STREQ(isa_name(static_cast<Isa>(99)), "unknown level");
}

}  // namespace
}  // namespace zeromerge
