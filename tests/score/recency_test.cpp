#include "zeromerge/score/recency.hpp"

#include <gtest/gtest.h>

#include "zeromerge/cache/policy.hpp"

namespace zeromerge {
namespace {

static_assert(Score<Recency>);
static_assert(!Recency::needs_probabilities && Recency::ranks);

TEST(Recency, TheOldestEntryIsWorthLeastWhateverItsScore) {
  const Recency recency;
  EXPECT_FALSE(recency.is_importance());
  for (std::size_t queries = 1; queries < 5000; ++queries)
    ASSERT_LT(recency.importance(9.0f, queries + 1), recency.importance(-9.0f, queries)) << queries;
}

}  // namespace
}  // namespace zeromerge
