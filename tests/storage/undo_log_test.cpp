// Records of what a head changes: the newest come back, last first, and what leaves the window is forgotten.
#include "zeromerge/storage/undo_log.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <deque>
#include <vector>

#include "support/random.hpp"
#include "zeromerge/storage/head.hpp"
#include "zeromerge/storage/score_images.hpp"

namespace zeromerge {
namespace {

using Kind = UndoLog::Kind;
using test::Random;

struct Known {
  Kind kind;
  std::size_t slot;
  std::vector<char> payload;
};

TEST(UndoLog, GivesStepsOfAnySizeBackLastFirst) {
  Random random(1);
  for (const std::size_t window : {1u, 2u, 5u, 64u})
    for (const std::size_t most : {40u, 700u}) {
      ByteLedger ledger;
      UndoLog log(&ledger);
      std::deque<std::vector<Known>> known;
      log.start(0);
      for (int round = 0; round < 400; ++round) {
        const std::size_t steps = random.between(1, 3);
        log.reserve(window, steps, most / 4, most);
        for (std::size_t i = 0; i < steps; ++i) {
          log.begin();
          log.add(Kind::note, 0, std::uint32_t{7});  // as every step has one
          std::vector<Known> step{{Kind::note, 0, {7, 0, 0, 0}}};
          for (std::size_t left = random.between(0, most - 12);;) {
            const std::size_t bytes = random.between(0, 30);
            if (UndoLog::taken(bytes) > left) break;
            left -= UndoLog::taken(bytes);
            Known record{static_cast<Kind>(random.between(0, 11)), random.between(0, 1u << 20), {}};
            for (std::size_t b = 0; b < bytes; ++b)
              record.payload.push_back(static_cast<char>(random.next()));
            char* to = log.open(bytes);
            ASSERT_NE(to, nullptr);
            std::copy(record.payload.begin(), record.payload.end(), to);
            log.close(record.kind, record.slot, bytes);
            step.push_back(record);
          }
          log.end();
          known.push_back(step);
          if (known.size() > window) known.pop_front();
        }
        ASSERT_LE(log.steps(), known.size());
        ASSERT_GE(log.steps() + 2, known.size()) << "several steps of a call may be larger than expected";
        for (std::size_t back = random.between(0, log.steps() / 2); back > 0; --back) {
          std::size_t at = known.back().size();
          log.take_back([&](const UndoLog::Record& record) {
            ASSERT_GT(at, 0u);
            const Known& expected = known.back()[--at];
            ASSERT_EQ(record.kind, expected.kind);
            ASSERT_EQ(record.slot, expected.slot);
            ASSERT_TRUE(std::equal(expected.payload.begin(), expected.payload.end(), record.payload));
          });
          ASSERT_EQ(at, 0u);
          known.pop_back();
        }
        while (known.size() > log.steps()) known.pop_front();
        ASSERT_EQ(ledger.held(), log.bytes());
      }
      log.release();
      EXPECT_EQ(ledger.held(), 0u);
      EXPECT_EQ(log.steps(), 0u);
      EXPECT_FALSE(log.started());
    }
}

TEST(UndoLog, TakesNoMemoryOnceItsWindowIsFull) {
  ByteLedger ledger;
  UndoLog log(&ledger);
  log.start(0);
  std::size_t held = 0;
  for (int token = 0; token < 300; ++token) {
    log.reserve(64, 1, 116, 132);
    log.begin();
    log.add(Kind::note, 0, std::array<char, 100>{});
    log.end();
    if (token == 0) held = ledger.held();
    ASSERT_EQ(ledger.held(), held) << token;
    ASSERT_EQ(log.steps(), std::min(64, token + 1));
  }
}

TEST(UndoLog, AStepThatDoesNotFitIsForgottenWithAllBefore) {
  ByteLedger ledger;
  UndoLog log(&ledger);
  log.reserve(4, 1, 40, 40);
  log.start(3);
  log.begin();
  EXPECT_EQ(log.open(100'000), nullptr);
  EXPECT_FALSE(log.recording());
  log.end();
  EXPECT_EQ(log.steps(), 0u);
  EXPECT_FALSE(log.whole()) << "tokens from before it cannot be taken back either";
}

TEST(ScoreImages, GiveBackWhatWasTaken) {
  ByteLedger ledger;
  ScoreImages images(&ledger);
  images.begin(3, 16);
  std::vector<float> score(16);
  for (float i = 0; i < 3; ++i) {
    score.assign(16, i);
    images.take(score.data(), 10);
  }
  images.take_back(2, score.data(), 10);
  EXPECT_EQ(images.count(), 1u);
  EXPECT_EQ(score[9], 1.0f);
  EXPECT_EQ(score[10], 2.0f);
  images.begin(1, 16);
  EXPECT_EQ(images.count(), 0u);
  EXPECT_GE(ledger.held(), 3 * 16 * sizeof(float));
  images.release();
  EXPECT_EQ(ledger.held(), 0u);
}

// ---- rows

// Every byte that is stored for the first `rows` rows.
template <class View>
std::vector<unsigned char> stored_bytes(const View& view, std::size_t rows);
template <>
std::vector<unsigned char> stored_bytes(const kernels::KeyTiles<q4>& view, std::size_t rows) {
  const std::size_t bytes = kernels::KeyTiles<q4>::group_bytes(view.dims) * (view.packed / kernels::kGroup);
  std::vector<unsigned char> all(view.groups, view.groups + bytes);
  for (std::size_t j = 0; view.packed + j < kernels::round_up(rows, 4) && view.settled; j += 4)
    all.push_back(view.narrow.tiles[j]);
  return all;
}
template <>
std::vector<unsigned char> stored_bytes(const kernels::ValueRows<q4>& view, std::size_t) {
  const std::size_t bytes =
      kernels::ValueRows<q4>::tile_bytes(view.row_size) * (view.packed / kernels::kTile);
  return {view.tiles, view.tiles + bytes};
}

template <class Rows>
void expect_group_writes_are_undone(std::size_t dim) {
  ByteLedger ledger;
  Rows rows(dim, &ledger);
  Random random(dim);
  rows.resize(100);
  for (std::size_t j = 0; j < 100; ++j) rows.write(j, test::normals(random, dim).data());
  rows.settle(100, 100, 4);
  std::vector<char> image(rows.image_bytes());
  for (int round = 0; round < 200; ++round) {
    const auto before = stored_bytes(rows.view(), 100);
    const std::size_t slot = random.between(0, 99);
    const auto row = test::normals(random, dim, round % 3 == 0 ? 20.0 : 1.0);
    std::vector<float> old(dim), now(dim);
    rows.read(slot, old.data());
    const std::size_t bytes = rows.record(slot, image.data(), [&](auto& r) { r.write(slot, row.data()); });
    ASSERT_LE(bytes, image.size());
    rows.read(slot, now.data());
    rows.restore(slot, image.data());
    rows.read(slot, now.data());
    ASSERT_EQ(old, now);
    ASSERT_EQ(stored_bytes(rows.view(), 100), before) << "slot " << slot;
    rows.write(slot, row.data());  // and on from other bytes
  }
}

TEST(UndoRows, AWriteIntoAGroupOfKeysGivesEveryByteBack) {
  for (const std::size_t dim : {5u, 16u, 24u, 64u, 80u, 128u, 256u})
    expect_group_writes_are_undone<Keys<q4>>(dim);
}

TEST(UndoRows, AWriteIntoAGroupOfValuesGivesEveryByteBack) {
  for (const std::size_t dim : {5u, 16u, 24u, 64u, 80u, 128u, 256u})
    expect_group_writes_are_undone<Values<q4>>(dim);
}

// ---- heads

struct Entries {
  std::vector<std::vector<float>> rows;
  std::vector<std::uint32_t> position;
  std::vector<float> mass;
  bool operator==(const Entries&) const = default;
};
Entries entries_of(const Head<any_storage>& head) {
  Entries all;
  for (std::size_t j = 0; j < head.size(); ++j) {
    all.rows.emplace_back(2 * head.head_dim());
    head.read_key(j, all.rows.back().data());
    head.read_value(j, all.rows.back().data() + head.head_dim());
    all.position.push_back(head.position()[j]);
    all.mass.push_back(head.mass()[j]);
  }
  return all;
}

// What steps of decoding are made of, in any order.
void change_at_random(Head<any_storage>& head, Random& random, std::uint32_t position, LooseRows loose) {
  const auto slot = [&] { return random.between(0, head.size() - 1); };
  const auto row = [&] {
    return test::normals(random, head.head_dim(), random.between(1, 5) == 1 ? 9.0 : 1.0);
  };
  head.append(row().data(), row().data(), position);
  for (std::size_t n = random.between(0, 4); n > 0; --n) switch (random.between(0, 5)) {
      case 0:
        head.move(slot(), slot());
        break;
      case 1:
        head.exchange(slot(), slot());
        break;
      case 2: {
        const std::size_t at = slot();
        head.write_key(at, row().data());
        head.mass()[at] += 1.0f;
        head.write_value(at, row().data());
        break;
      }
      case 3: {
        const std::size_t oldest = slot(), victim = slot(), newest = head.size() - 1;
        head.move(oldest, victim);
        head.move_over(newest, oldest, victim);
        break;
      }
      case 4: {
        const std::size_t from = head.exact_from(), places = head.size() - std::min(head.size(), from);
        if (places > 1) head.rotate(from, places, random.between(1, places - 1));
        break;
      }
      default: {
        const std::size_t gone = random.between(1, 3);
        for (std::size_t i = 1; i <= gone; ++i) head.keep(head.size() - i, head.size() - i);
        head.cut(head.size() - gone);
        break;
      }
    }
  head.pack(loose);
}

TEST(UndoHead, StepsOfAnyKindComeBackBitForBit) {
  for (const StorageType keys :
       {StorageType::f32, StorageType::f16, StorageType::bf16, StorageType::q8, StorageType::q4})
    for (const StorageType values : {keys, StorageType::q4})
      for (const std::size_t loose : {0u, 11u}) {
        SCOPED_TRACE(std::string(storage_name(keys)) + " " + storage_name(values));
        ByteLedger ledger;
        Random random(7 + loose);
        Head<any_storage> head(24, {true, true}, &ledger, keys, values);
        head.reserve(300);
        for (std::uint32_t j = 0; j < 75; ++j)
          head.append(test::normals(random, 24).data(), test::normals(random, 24).data(), j);
        const LooseRows kept{loose, loose};
        head.settle(300, kept);
        head.log().start(0);
        std::vector<Entries> before;
        for (int round = 0; round < 60; ++round) {
          for (std::size_t n = random.between(1, 5); n > 0; --n) {
            head.make_room(300, {kept, kept}, false);
            head.log().reserve(64, 1, 3000, 40'000);
            before.push_back(entries_of(head));
            head.log().begin();
            head.log().add(Kind::note, 0, std::uint32_t{0});
            change_at_random(head, random, static_cast<std::uint32_t>(before.size()), kept);
            head.log().end();
          }
          for (std::size_t n = random.between(0, std::min<std::size_t>(before.size(), 6)); n > 0; --n) {
            head.log().take_back([&](const UndoLog::Record& record) { head.undo(record, 1.0f); });
            head.set_size(before.back().position.size());
            ASSERT_TRUE(entries_of(head) == before.back()) << "round " << round;
            before.pop_back();
          }
          if (head.size() > 250) head.cut(80), head.log().release(), head.log().start(0), before.clear();
        }
      }
}

}  // namespace
}  // namespace zeromerge
