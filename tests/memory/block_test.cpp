#include "zeromerge/memory/block.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "support/random.hpp"

namespace zeromerge {
namespace {

char pattern(std::size_t i) { return static_cast<char>(i * 131 + i / 256); }
void fill(Block& block, std::size_t from) {
  for (std::size_t i = from; i < block.bytes(); ++i) block.data()[i] = pattern(i);
}
bool holds(const Block& block, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i)
    if (block.data()[i] != pattern(i)) return false;
  return true;
}

TEST(Block, GrowingAndShrinkingKeepTheBytesAndTheLedgerIsExact) {
  ByteLedger ledger;
  test::Random random(7);
  Block block(&ledger);
  std::vector<std::size_t> sizes = {1,
                                    64,
                                    65,
                                    100,
                                    Block::kPagesFrom - 1,
                                    Block::kPagesFrom,
                                    Block::kPagesFrom + 1,
                                    5'000'000,
                                    Block::kMapFrom - 1,
                                    Block::kMapFrom,
                                    Block::kMapFrom / 2,
                                    Block::kPagesFrom,
                                    Block::kPagesFrom - 64,
                                    70,
                                    1'000'000,
                                    3};
  for (int i = 0; i < 60; ++i) sizes.push_back(random.between(1, 3 * Block::kPagesFrom));
  for (const std::size_t bytes : sizes) {
    const std::size_t before = block.bytes();
    block.resize(bytes);
    ASSERT_GE(block.bytes(), bytes);
    ASSERT_LT(block.bytes(), bytes + (bytes >= Block::kPagesFrom - 64 ? Block::kPage : Block::kAlignment));
    ASSERT_EQ(reinterpret_cast<std::uintptr_t>(block.data()) % Block::kAlignment, 0u);
    ASSERT_TRUE(holds(block, std::min(before, block.bytes()))) << before << " to " << bytes;
    ASSERT_EQ(ledger.held(), block.bytes());
    fill(block, std::min(before, block.bytes()));
  }
  EXPECT_EQ(ledger.peak(), Block::rounded(5'000'000));
  block.resize(0);
  EXPECT_EQ(ledger.held(), 0u);
  EXPECT_EQ(block.data(), nullptr);
}

TEST(Block, MovingHandsOverBytesAndLedger) {
  ByteLedger ledger;
  {
    Block a(&ledger);
    a.resize(200'000);
    fill(a, 0);
    Block b(std::move(a));
    EXPECT_TRUE(holds(b, 200'000));
    Block c(&ledger);
    c.resize(1000);
    c = std::move(b);
    EXPECT_TRUE(holds(c, 200'000));
    EXPECT_EQ(ledger.held(), c.bytes());  // what c held before is freed at once
    Block d = c.sibling();
    d.resize(10);
    EXPECT_EQ(ledger.held(), c.bytes() + d.bytes());
    c.swap(d);
    EXPECT_TRUE(holds(d, 200'000));
  }
  EXPECT_EQ(ledger.held(), 0u);
}

TEST(Block, AnImpossibleSizeThrowsAndChangesNothing) {
  ByteLedger ledger;
  for (const std::size_t held : {std::size_t{0}, std::size_t{640}, 2 * Block::kPagesFrom}) {
    Block block(&ledger);
    block.resize(held);
    fill(block, 0);
    const char* data = block.data();
    EXPECT_THROW(block.resize(std::size_t{1} << 60), std::bad_alloc);
    EXPECT_EQ(block.data(), data);
    EXPECT_EQ(ledger.held(), held);
    EXPECT_TRUE(holds(block, held));
  }
}

TEST(Block, WithoutALedgerItWorksTheSame) {
  Block block;
  block.resize(300'000);
  fill(block, 0);
  block.resize(100);
  EXPECT_TRUE(holds(block, 100));
}

TEST(Block, IsCopiedByteForByteAndCounted) {
  ByteLedger ledger;
  for (const std::size_t bytes : {0u, 100u, 40000u, 3000000u}) {
    Block block(&ledger);
    block.resize(bytes);
    for (std::size_t i = 0; i < block.bytes(); ++i) block.data()[i] = pattern(i);
    Block copy(block);
    EXPECT_EQ(copy.bytes(), block.bytes());
    EXPECT_EQ(ledger.held(), 2 * block.bytes());
    if (bytes == 0) continue;
    EXPECT_NE(copy.data(), block.data());
    EXPECT_EQ(std::memcmp(copy.data(), block.data(), block.bytes()), 0);
  }
  EXPECT_EQ(ledger.held(), 0u);
}

}  // namespace
}  // namespace zeromerge
