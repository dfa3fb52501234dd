// How rows of several tasks stand side by side, and how answers are put together.
#include <gtest/gtest.h>

#include "evaluate/findings.hpp"
#include "evaluate/summary.hpp"

namespace {

using nlohmann::json;

json row(const char* text, const char* policy, std::size_t right, std::size_t counted) {
  return {{"task", "needles"}, {"asked", "after"}, {"text", text},   {"policy", policy},  {"budget", "5%"},
          {"entries", 100},    {"bytes", 2000},    {"right", right}, {"counted", counted}};
}

TEST(EvaluateFindings, MatchAKeyMemberByMember) {
  const json one = row("a", "p", 1, 2);
  EXPECT_TRUE(evaluate::matches(one, {{"task", "needles"}, {"text", "a"}}));
  EXPECT_FALSE(evaluate::matches(one, {{"task", "needles"}, {"text", "b"}}));
  EXPECT_FALSE(evaluate::matches(one, {{"turn", "first"}})) << "a member that it lacks";
  EXPECT_TRUE(evaluate::has(json::array({row("b", "p", 0, 1), one}), {{"text", "a"}}));
  EXPECT_FALSE(evaluate::has(json::array(), {{"text", "a"}}));
}

TEST(EvaluateNeedles, AreSummedOverTextsByPolicyAndBudget) {
  json rows = json::array({row("a", "p", 3, 5), row("a", "q", 1, 5), row("b", "p", 2, 4)});
  rows.push_back(row("c", "p", 9, 9));
  rows.back()["asked"] = "in";
  rows.push_back({{"task", "continuation"}, {"policy", "p"}, {"budget", "5%"}});
  const auto all = evaluate::summarise_needles(rows, {{"task", "needles"}, {"asked", "after"}});
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].policy, "p");
  EXPECT_EQ(all[0].right, 5u);
  EXPECT_EQ(all[0].counted, 9u);
  EXPECT_DOUBLE_EQ(all[0].entries, 100.0);
  EXPECT_EQ(all[1].right, 1u);
}

}  // namespace
