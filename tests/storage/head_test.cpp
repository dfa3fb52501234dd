#include "zeromerge/storage/head.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <vector>

#include "support/held.hpp"
#include "support/random.hpp"
#include "support/rounding.hpp"

namespace zeromerge {
namespace {

using test::held;
using test::HeldHead;
using test::Random;

constexpr EntryFields kAll{true, true};

// A head of n random entries at positions 100, 101, ...
template <class K, class V>
Head<K, V> filled(std::size_t n, std::size_t dim, std::uint64_t seed, ByteLedger* ledger,
                  EntryFields fields = kAll) {
  Random random(seed);
  Head<K, V> head(dim, fields, ledger);
  head.reserve(n);
  for (std::size_t j = 0; j < n; ++j) {
    const auto k = test::normals(random, dim);
    const auto v = test::normals(random, dim);
    head.append(k.data(), v.data(), static_cast<std::uint32_t>(100 + j));
    if (fields.score) head.score()[j] = static_cast<float>(random.uniform());
    if (fields.mass) {
      head.mass()[j] = static_cast<float>(j + 1);
      head.bias()[j] = static_cast<float>(random.uniform());
    }
  }
  return head;
}

void expect_same(const HeldHead& a, const HeldHead& b) {
  EXPECT_EQ(test::difference({0, false, {a}}, {0, false, {b}}), "");
}

// Slot `from` of a, at slot `to` of b.
void expect_entry(const HeldHead& a, std::size_t from, const HeldHead& b, std::size_t to, std::size_t dim) {
  for (std::size_t d = 0; d < dim; ++d) {
    ASSERT_EQ(a.key[from * dim + d], b.key[to * dim + d]) << "dim " << d;
    ASSERT_EQ(a.value[from * dim + d], b.value[to * dim + d]) << "dim " << d;
  }
  ASSERT_EQ(a.position[from], b.position[to]);
  ASSERT_EQ(a.score[from], b.score[to]);
  ASSERT_EQ(a.mass[from], b.mass[to]);
  ASSERT_EQ(a.bias[from], b.bias[to]);
}

template <class T>
class HeadOf : public testing::Test {};
using Types = testing::Types<float, f16, bf16>;
TYPED_TEST_SUITE(HeadOf, Types);

TYPED_TEST(HeadOf, EntriesReadAsTheyWereRounded) {
  for (const std::size_t dim : {1u, 5u, 8u, 24u, 64u, 80u, 128u}) {
    ByteLedger ledger;
    Random random(dim);
    Head<TypeParam> head(dim, {}, &ledger);
    head.reserve(40);
    const auto k = test::normals(random, 40 * dim);
    const auto v = test::normals(random, 40 * dim);
    for (std::size_t j = 0; j < 40; ++j)
      head.append(k.data() + j * dim, v.data() + j * dim, static_cast<std::uint32_t>(j));
    const HeldHead copy = held(head);
    EXPECT_EQ(copy.key, test::kept_as<TypeParam>(k)) << dim;
    EXPECT_EQ(copy.value, test::kept_as<TypeParam>(v)) << dim;
    for (std::size_t j = 0; j < 40; ++j) ASSERT_EQ(copy.position[j], j);
  }
}

TYPED_TEST(HeadOf, NewEntriesHaveMassOneAndNoScore) {
  ByteLedger ledger;
  Head<TypeParam> head(4, kAll, &ledger);
  head.reserve(1);
  const float row[4] = {1, 2, 3, 4};
  head.append(row, row, 9);
  EXPECT_EQ(head.mass()[0], 1.0f);
  EXPECT_EQ(head.bias()[0], 0.0f);
  EXPECT_EQ(head.score()[0], 0.0f);
}

TYPED_TEST(HeadOf, GrowingAndFittingKeepTheEntriesAndCountTheBytes) {
  for (const std::size_t dim : {5u, 64u}) {
    ByteLedger ledger;
    auto head = filled<TypeParam, TypeParam>(37, dim, dim, &ledger);
    const HeldHead before = held(head);
    for (const std::size_t entries : {38u, 300u, 3000u, 100u, 37u}) {
      head.fit(entries);
      EXPECT_EQ(head.capacity(), entries);
      expect_same(held(head), before);
      EXPECT_EQ(ledger.held(), head.bytes());
      const std::size_t padded = (entries + 15) / 16 * 16;
      const std::size_t pack = kernels::pack_of<TypeParam>;
      const std::size_t least = padded * ((dim + pack - 1) / pack * pack) * sizeof(TypeParam) +
                                entries * ((dim + 15) / 16 * 16) * sizeof(TypeParam) + padded * 16;
      EXPECT_GE(head.bytes(), least);
      EXPECT_LT(head.bytes(), least + 6 * Block::kPage);
    }
    head.reserve(10);  // never shrinks
    EXPECT_EQ(head.capacity(), 37u);
    head.clear();
    EXPECT_EQ(head.size(), 0u);
    EXPECT_EQ(ledger.held(), 0u);
  }
}

TYPED_TEST(HeadOf, CopyMoveAndExchangeTransferWholeEntries) {
  for (const std::size_t dim : {1u, 5u, 64u}) {
    ByteLedger ledger;
    const auto source = filled<TypeParam, TypeParam>(40, dim, 1, &ledger);
    auto target = filled<TypeParam, TypeParam>(40, dim, 2, &ledger);
    const HeldHead a = held(source);
    const HeldHead before = held(target);
    target.copy(source, 39, 3);
    target.move(20, 17);
    target.move(8, 8);
    target.exchange(5, 33);
    target.exchange(1, 2);
    target.exchange(6, 6);
    const HeldHead after = held(target);
    expect_entry(a, 39, after, 3, dim);
    expect_entry(before, 20, after, 17, dim);
    expect_entry(before, 5, after, 33, dim);
    expect_entry(before, 33, after, 5, dim);
    expect_entry(before, 1, after, 2, dim);
    expect_entry(before, 2, after, 1, dim);
    for (const std::size_t untouched : {0u, 4u, 6u, 8u, 16u, 20u, 32u, 34u, 39u})
      expect_entry(before, untouched, after, untouched, dim);
  }
}

TEST(Head, WritingOneSlotLeavesItsNeighboursInTheTile) {
  ByteLedger ledger;
  auto head = filled<f16, f16>(32, 5, 3, &ledger);
  const HeldHead before = held(head);
  const float key[5] = {1, 2, 3, 4, 5};
  const float value[5] = {6, 7, 8, 9, 10};
  head.write_key(7, key);
  head.write_value(7, value);
  const HeldHead after = held(head);
  for (std::size_t j = 0; j < 32; ++j)
    for (std::size_t d = 0; d < 5; ++d) {
      ASSERT_EQ(after.key[j * 5 + d], j == 7 ? key[d] : before.key[j * 5 + d]);
      ASSERT_EQ(after.value[j * 5 + d], j == 7 ? value[d] : before.value[j * 5 + d]);
    }
}

TEST(Head, OnlyTheFieldsAskedForTakeMemory) {
  ByteLedger ledger;
  Head<f16> bare(64, {}, &ledger);
  bare.reserve(160);
  EXPECT_EQ(bare.score(), nullptr);
  EXPECT_EQ(bare.mass(), nullptr);
  EXPECT_EQ(bare.bias(), nullptr);
  Head<f16> scored(64, {true, false}, &ledger);
  scored.reserve(160);
  EXPECT_NE(scored.score(), nullptr);
  EXPECT_EQ(scored.mass(), nullptr);
  EXPECT_EQ(scored.bytes(), bare.bytes() + 160 * sizeof(float));
}

TEST(Head, KeysAndValuesMayHaveDifferentTypes) {
  ByteLedger ledger;
  auto head = filled<bf16, float>(20, 24, 5, &ledger);
  Random random(5);
  for (std::size_t j = 0; j < 20; ++j) {
    const auto k = test::kept_as<bf16>(test::normals(random, 24));
    const auto v = test::normals(random, 24);
    (void)random.uniform();
    (void)random.uniform();
    std::vector<float> row(24);
    head.read_key(j, row.data());
    ASSERT_EQ(row, k);
    head.read_value(j, row.data());
    ASSERT_EQ(row, v);
  }
}

TEST(Head, SwappingTradesEntriesAndASiblingIsEmptyOfTheSameKind) {
  ByteLedger ledger;
  auto a = filled<float, float>(10, 8, 1, &ledger);
  auto b = a.sibling();
  EXPECT_EQ(b.size(), 0u);
  EXPECT_EQ(b.head_dim(), 8u);
  EXPECT_TRUE(b.fields().mass);
  const HeldHead before = held(a);
  a.swap(b);
  EXPECT_EQ(a.size(), 0u);
  EXPECT_EQ(a.bytes(), 0u);
  expect_same(held(b), before);
  b.truncate(4);
  EXPECT_EQ(b.size(), 4u);
  b.truncate(9);
  EXPECT_EQ(b.size(), 4u);
}

}  // namespace
}  // namespace zeromerge
