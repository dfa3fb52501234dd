#include "zeromerge/core/geometry.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

namespace zeromerge {
namespace {

std::string refusal(const Geometry& geometry) {
  try {
    geometry.validate();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Geometry, ScaleDefaultsToTheInverseRootOfHeadDim) {
  EXPECT_FLOAT_EQ((Geometry{.head_dim = 64}.attention_scale()), 0.125f);
  EXPECT_FLOAT_EQ((Geometry{.head_dim = 64, .scale = 0.5f}.attention_scale()), 0.5f);
}

TEST(Geometry, GroupIsTheNumberOfQueryHeadsPerKvHead) {
  EXPECT_EQ((Geometry{.query_heads = 9, .kv_heads = 3}.group()), 3u);
}

TEST(Geometry, PossibleShapesAreAccepted) {
  EXPECT_EQ(refusal({}), "");
  EXPECT_EQ(
      refusal({.layers = 80, .query_heads = 71, .kv_heads = 1, .head_dim = kMaxHeadDim, .logit_softcap = 50}),
      "");
}

TEST(Geometry, ImpossibleShapesAreRefusedWithTheirNumbers) {
  EXPECT_NE(refusal({.layers = 0, .query_heads = 7}).find("0, 7"), std::string::npos);
  EXPECT_NE(refusal({.query_heads = 0}), "");
  EXPECT_NE(refusal({.kv_heads = 0}), "");
  EXPECT_NE(refusal({.head_dim = 0}), "");
  EXPECT_NE(refusal({.query_heads = 9, .kv_heads = 2}).find("9 and 2"), std::string::npos);
  EXPECT_NE(refusal({.head_dim = kMaxHeadDim + 1}).find("1025"), std::string::npos);
  EXPECT_NE(refusal({.scale = -1.0f}).find("-1"), std::string::npos);
  EXPECT_NE(refusal({.scale = std::nanf("")}), "");
  EXPECT_NE(refusal({.logit_softcap = -2.0f}).find("-2"), std::string::npos);
  EXPECT_NE(refusal({.logit_softcap = HUGE_VALF}), "");
}

}  // namespace
}  // namespace zeromerge
