// The preset h2o against H2O written down slowly: sums of attention in lists, everything in double.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

#include "support/attention.hpp"
#include "support/sequence.hpp"

namespace zeromerge {
namespace {

using test::Tokens;

const Geometry kGeometry{.query_heads = 6, .kv_heads = 2, .head_dim = 64};

// One kv head: what is kept, by position, and what attention each entry has got from all queries so far.
class HeavyHitters {
 public:
  HeavyHitters(const Tokens& tokens, std::size_t kv_head, std::size_t budget)
      : t_(tokens), kv_(kv_head), budget_(budget), recent_(budget / 2) {}

  void see(std::size_t token) {
    kept_.push_back({token, 0.0});
    for (std::size_t m = 0; m < t_.g.group(); ++m) {
      const auto a = test::attention(
          t_.query(token, kv_ * t_.g.group() + m), t_.g.head_dim, kept_.size(),
          static_cast<double>(t_.g.attention_scale()), 0.0,
          [&](std::size_t j) { return t_.key(kept_[j].position, kv_); },
          [&](std::size_t j) { return t_.value(kept_[j].position, kv_); }, [](std::size_t) { return 0.0; });
      for (std::size_t j = 0; j < kept_.size(); ++j) kept_[j].sum += a.probability[j];
    }
  }

  // Leaves the newest half of the budget and the heaviest of the others.
  void shrink() {
    while (kept_.size() > budget_)
      kept_.erase(std::min_element(kept_.begin(), kept_.end() - static_cast<std::ptrdiff_t>(recent_),
                                   [](const Entry& a, const Entry& b) { return a.sum < b.sum; }));
  }

  std::vector<std::size_t> positions() const {
    std::vector<std::size_t> p;
    for (const Entry& e : kept_) p.push_back(e.position);
    return p;
  }

 private:
  struct Entry {
    std::size_t position;
    double sum;
  };
  const Tokens& t_;
  std::size_t kv_, budget_, recent_;
  std::vector<Entry> kept_;
};

TEST(H2O, KeepsTheHeaviestAndTheNewest) {
  const std::size_t prompt = 120;
  const Tokens t(kGeometry, prompt + 60, 8);
  for (const std::size_t budget : {32, 40, 64}) {
    auto cache = make_cache("h2o:storage=f32,budget=" + std::to_string(budget), kGeometry);
    AnyLayer& layer = cache->layer(0);
    std::vector<HeavyHitters> expected = {{t, 0, budget}, {t, 1, budget}};
    const auto compare = [&](std::size_t token) {
      for (std::size_t h = 0; h < 2; ++h) {
        std::vector<std::size_t> held;
        for (std::size_t j = 0; j < layer.entries(h); ++j) held.push_back(layer.position(h, j));
        std::sort(held.begin(), held.end());
        ASSERT_EQ(held, expected[h].positions())
            << "budget " << budget << " head " << h << " token " << token;
      }
    };
    (void)test::prefill(layer, t, 0, prompt);
    layer.finish_prompt();
    for (HeavyHitters& head : expected) {
      for (std::size_t token = 0; token < prompt; ++token) head.see(token);
      head.shrink();
    }
    compare(prompt);
    for (std::size_t token = prompt; token < t.count; ++token) {
      (void)test::decode(layer, t, token);
      for (HeavyHitters& head : expected) {
        head.see(token);
        head.shrink();
      }
      compare(token);
    }
  }
}

TEST(H2O, TakesWhatIsSaidInsteadOfItsDefaults) {
  const Tokens t(kGeometry, 100, 9);
  auto cache = make_cache("h2o:budget=40,sinks=4,tail=10", kGeometry);
  (void)test::prefill(cache->layer(0), t, 0, 100);
  cache->finish_prompt();
  for (std::size_t j = 0; j < 4; ++j) EXPECT_EQ(cache->layer(0).position(0, j), j);
  EXPECT_EQ(cache->layer(0).mass(0, 5), 1.0f) << "nothing is merged";
  EXPECT_THROW((void)make_cache("h2o:colour=red", kGeometry), Error);
}

}  // namespace
}  // namespace zeromerge
