#include "zeromerge/cache/workspace.hpp"

#include <gtest/gtest.h>

#include <algorithm>

namespace zeromerge {
namespace {

TEST(Workspace, EachNameIsAnArrayOfItsOwn) {
  Workspace w;
  float* a = w.floats(Workspace::queries, 1000);
  float* b = w.floats(Workspace::logits, 1000);
  std::fill_n(a, 1000, 1.0f);
  std::fill_n(b, 1000, 2.0f);
  EXPECT_TRUE(std::all_of(a, a + 1000, [](float x) { return x == 1.0f; }));
}

TEST(Workspace, OnlyGrows) {
  Workspace w;
  (void)w.floats(Workspace::queries, 100'000);
  const std::size_t bytes = w.bytes();
  EXPECT_GE(bytes, 400'000u);
  (void)w.floats(Workspace::queries, 10);
  EXPECT_EQ(w.bytes(), bytes);
}

TEST(Workspace, ReleasingThePromptKeepsWhatDecodingNeeds) {
  Workspace w;
  (void)w.floats(Workspace::logits, 1000);
  (void)w.floats(Workspace::partial_out, 1000);
  (void)w.floats(Workspace::partial_sum, 1000);
  const std::size_t decode = w.bytes();
  (void)w.floats(Workspace::queries, 50'000);
  (void)w.floats(Workspace::columns, 50'000);
  (void)w.floats(Workspace::lanes, 50'000);
  w.release_prompt();
  EXPECT_EQ(w.bytes(), decode);
  EXPECT_GE(w.bytes_peak(), decode + 600'000u);
}

TEST(Workspace, ThereIsAtLeastOneLane) { EXPECT_GE(Workspace::lane_count(), 1u); }

}  // namespace
}  // namespace zeromerge
