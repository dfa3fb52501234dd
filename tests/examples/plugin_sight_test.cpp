// What the plug-in reads from a mask: which rows of a call continue each other.
#include "plugin/sight.hpp"

#include <gtest/gtest.h>

#include <string>

namespace zeromerge::plugin {
namespace {

// A mask as text, one row a string: '#' a cell that is seen, '.' one that is not, '?' another value. The
// cells that the rows write are the ones given.
struct Read {
  Read(const std::vector<std::string>& rows, const std::vector<std::size_t>& written) {
    for (const std::string& row : rows)
      for (const char c : row) bits.push_back(c == '#' ? kVisible : c == '.' ? kHidden : 0x3c00);
    const MaskRows mask{reinterpret_cast<const char*>(bits.data()), rows[0].size() * sizeof bits[0],
                        rows.size(), rows[0].size()};
    sight = read_sight(mask, written);
  }
  std::vector<std::uint16_t> bits;
  Sight sight;
};

std::string text(const std::vector<std::uint16_t>& past) {
  std::string s;
  for (const std::uint16_t x : past) s += x == kVisible ? '#' : '.';
  return s;
}

using Indices = std::vector<std::size_t>;

TEST(Sight, RowsThatContinueEachOtherAreOneRun) {
  const Read r({"##....", "###...", "####.."}, {1, 2, 3});
  ASSERT_EQ(r.sight.runs.size(), 1u);
  EXPECT_EQ(r.sight.runs[0].kind, Run::Kind::causal);
  EXPECT_EQ(r.sight.runs[0].rows, (Indices{0, 1, 2}));
  EXPECT_EQ(r.sight.runs[0].cells, (Indices{1, 2, 3}));
  EXPECT_EQ(text(r.sight.runs[0].past), "#.....");
  EXPECT_EQ(r.sight.runs[0].tokens, 1u);
  EXPECT_TRUE(r.sight.others.empty());
}

TEST(Sight, SequencesInOneStreamAreRunsOfTheirOwnWhateverTheirOrder) {
  //       a a b b
  const Read r({"##..#...", "..##.#..", "##..#.#.", "..##.#.#"}, {4, 5, 6, 7});
  ASSERT_EQ(r.sight.runs.size(), 2u);
  EXPECT_EQ(r.sight.runs[0].rows, (Indices{0, 2}));
  EXPECT_EQ(text(r.sight.runs[0].past), "##......");
  EXPECT_EQ(r.sight.runs[1].rows, (Indices{1, 3}));
  EXPECT_EQ(text(r.sight.runs[1].past), "..##....");
}

TEST(Sight, AForkBeforeTheCallIsTwoRunsOfOnePast) {
  const Read r({"###.", "##.#"}, {2, 3});
  ASSERT_EQ(r.sight.runs.size(), 2u);
  EXPECT_EQ(r.sight.runs[0].past, r.sight.runs[1].past);
}

TEST(Sight, AForkWithinTheCallIsLeftOut) {
  const Read r({"##..", "###.", "##.#"}, {1, 2, 3});
  ASSERT_EQ(r.sight.runs.size(), 1u);
  EXPECT_EQ(r.sight.runs[0].rows, (Indices{0, 1}));
  EXPECT_EQ(r.sight.others, (Indices{2}));
  EXPECT_EQ(r.sight.reason, Reason::branches);
}

TEST(Sight, RowsThatSeeAllOfEachOtherAreABlock) {
  const Read r({"#.###.", "#.###.", "#.###."}, {2, 3, 4});
  ASSERT_EQ(r.sight.runs.size(), 1u);
  EXPECT_EQ(r.sight.runs[0].kind, Run::Kind::block);
  EXPECT_EQ(r.sight.runs[0].cells, (Indices{2, 3, 4}));
  EXPECT_EQ(text(r.sight.runs[0].past), "#.....");
}

TEST(Sight, AWindowThatMovesWithinTheCallIsOne) {
  const Read past({"###...", ".###..", "..###."}, {2, 3, 4});
  ASSERT_EQ(past.sight.runs.size(), 1u);
  EXPECT_EQ(past.sight.runs[0].kind, Run::Kind::window);
  EXPECT_EQ(past.sight.runs[0].rows, (Indices{0, 1, 2}));
  const Read own({"#.....", "##....", ".##...", "..##.."}, {0, 1, 2, 3});
  ASSERT_EQ(own.sight.runs.size(), 1u);
  EXPECT_EQ(own.sight.runs[0].kind, Run::Kind::window);
}

TEST(Sight, OtherValuesAreLeftOut) {
  const Read r({"?#..", "?##."}, {1, 2});
  EXPECT_TRUE(r.sight.runs.empty());
  EXPECT_EQ(r.sight.others.size(), 2u);
  EXPECT_EQ(r.sight.reason, Reason::mask_values);
}

TEST(Sight, ARowThatDoesNotSeeItselfIsLeftOut) {
  const Read r({"#..."}, {1});
  EXPECT_TRUE(r.sight.runs.empty());
  EXPECT_EQ(r.sight.others, (Indices{0}));
}

TEST(Chain, KnowsItsPastAndWhatIsLeftOfIt) {
  Chain chain(8);
  for (const std::size_t cell : {3u, 1u, 6u, 2u}) chain.append(cell);
  const auto past = [](const std::string& cells) {
    std::vector<std::uint16_t> bits;
    for (const char c : cells) bits.push_back(c == '#' ? kVisible : kHidden);
    return bits;
  };
  EXPECT_TRUE(chain.is(past(".###..#.")));
  EXPECT_TRUE(chain.is(past(".###..#")));
  EXPECT_FALSE(chain.is(past(".###.."))) << "a cell lies outside of the view";
  EXPECT_FALSE(chain.is(past(".###.##.")));
  EXPECT_FALSE(chain.is(past(".###....")));
  EXPECT_EQ(chain.common(past(".#.#....")), 2u);
  EXPECT_EQ(chain.common(past(".##...#.")), 0u);
  EXPECT_TRUE(chain.ends_with(past("..#...#."), 2));
  EXPECT_FALSE(chain.ends_with(past(".#....#."), 2));
  EXPECT_FALSE(chain.ends_with(past(".###..#."), 4)) << "it is all";
  EXPECT_TRUE(chain.covers(past(".#.#....")));
  EXPECT_FALSE(chain.covers(past(".#.#.#..")));
  EXPECT_EQ(chain.first_from(6), 2u);
  EXPECT_EQ(chain.place(6), 2u);
  chain.cut(2);
  EXPECT_TRUE(chain.is(past(".#.#....")));
  EXPECT_TRUE(chain.is(past(".#.#")));
  EXPECT_FALSE(chain.contains(6));
  EXPECT_EQ(chain.first_from(4), 2u);
}

}  // namespace
}  // namespace zeromerge::plugin
