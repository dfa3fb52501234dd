#include "zeromerge/memory/arena.hpp"

#include <gtest/gtest.h>

#if defined(__linux__)

#include <sys/mman.h>

#include <cstddef>
#include <cstring>
#include <thread>
#include <vector>

#include "support/random.hpp"

namespace zeromerge {
namespace {

constexpr std::size_t kPage = pages::kPage;

struct Piece {
  char* at;
  std::size_t bytes;
  char mark;
};

void fill(const Piece& piece) { std::memset(piece.at, piece.mark, piece.bytes); }
bool holds(const Piece& piece, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; i += 512)
    if (piece.at[i] != piece.mark) return false;
  return piece.at[bytes - 1] == piece.mark;
}

// Pages of [at, at + bytes) that the system has memory behind.
std::size_t resident(const char* at, std::size_t bytes) {
  std::vector<unsigned char> in(bytes / kPage);
  if (mincore(const_cast<char*>(at), bytes, in.data()) != 0) return bytes / kPage + 1;
  std::size_t count = 0;
  for (const unsigned char page : in) count += page & 1u;
  return count;
}

std::size_t limit(const Arena& arena) { return arena.used() + Arena::kIdle + arena.used() / 16; }

TEST(Arena, PiecesAreApartAndKeepTheirBytesWhileOthersComeAndGo) {
  Arena arena;
  test::Random random(5);
  std::vector<Piece> pieces;
  std::size_t used = 0;
  for (int round = 0; round < 3000; ++round) {
    const std::size_t bytes = random.between(4, random.between(0, 3) == 0 ? 511 : 60) * kPage;
    const std::size_t choice = random.between(0, 9);
    if (pieces.empty() || choice < 4) {
      char* at = arena.take(bytes);
      ASSERT_NE(at, nullptr);
      pieces.push_back({at, bytes, static_cast<char>(round)});
      used += bytes;
      fill(pieces.back());
    } else {
      const std::size_t i = random.between(0, pieces.size() - 1);
      Piece& piece = pieces[i];
      ASSERT_TRUE(holds(piece, piece.bytes));
      if (choice < 6 && arena.resize(piece.at, piece.bytes, bytes)) {
        ASSERT_TRUE(holds(piece, std::min(piece.bytes, bytes)));
        used += bytes - piece.bytes;
        piece.bytes = bytes;
        fill(piece);
      } else if (choice >= 6) {
        arena.give(piece.at, piece.bytes);
        used -= piece.bytes;
        piece = pieces.back();
        pieces.pop_back();
      }
    }
    ASSERT_EQ(arena.used(), used);
    ASSERT_GE(arena.held(), used);
  }
  for (const Piece& piece : pieces) {
    ASSERT_TRUE(holds(piece, piece.bytes));
    arena.give(piece.at, piece.bytes);
    ASSERT_LE(arena.held(), limit(arena));
  }
  EXPECT_EQ(arena.used(), 0u);
  EXPECT_EQ(arena.held(), 0u);
}

TEST(Arena, WhatIsGivenBackLeavesTheProcess) {
  Arena arena;
  constexpr std::size_t kBytes = 64 * kPage;
  std::vector<Piece> pieces;
  for (int i = 0; i < 200; ++i) {
    pieces.push_back({arena.take(kBytes), kBytes, 1});
    ASSERT_NE(pieces.back().at, nullptr);
    fill(pieces.back());
  }
  ASSERT_EQ(resident(pieces[0].at, kBytes), kBytes / kPage);
  // Seven of eight go, so that every huge page stays in use.
  for (std::size_t i = 0; i < pieces.size(); ++i)
    if (i % 8 != 0) arena.give(pieces[i].at, kBytes);
  EXPECT_EQ(arena.used(), 25 * kBytes);
  EXPECT_LE(arena.held(), limit(arena));
  std::size_t kept = 0, left = 0;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    if (i % 8 == 0) {
      EXPECT_TRUE(holds(pieces[i], kBytes));
    }
    (i % 8 == 0 ? kept : left) += resident(pieces[i].at, kBytes) * kPage;
  }
  EXPECT_EQ(kept, 25 * kBytes);
  EXPECT_LE(kept + left, limit(arena));
}

TEST(Arena, LargePiecesDoNotLieBetweenSmallOnes) {
  Arena arena;
  char* small = arena.take(4 * kPage);
  char* large = arena.take(100 * kPage);
  char* other = arena.take(4 * kPage);
  EXPECT_EQ(other, small + 4 * kPage);
  EXPECT_FALSE(arena.resize(small, 4 * kPage, 100 * kPage));
  EXPECT_FALSE(arena.resize(small, 4 * kPage, 5 * kPage));
  EXPECT_TRUE(arena.resize(other, 4 * kPage, 50 * kPage));
  EXPECT_TRUE(arena.resize(large, 100 * kPage, 64 * kPage));
  EXPECT_EQ(arena.used(), (4 + 50 + 64) * kPage);
  for (const auto& [at, pages] : {std::pair{small, 4}, {large, 64}, {other, 50}})
    arena.give(at, static_cast<std::size_t>(pages) * kPage);
  EXPECT_EQ(arena.held(), 0u);
}

TEST(Arena, ThreadsShareIt) {
  Arena arena;
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < 4; ++t)
    threads.emplace_back([&arena, t] {
      test::Random random(t);
      for (int round = 0; round < 200; ++round) {
        const Piece piece{nullptr, random.between(4, 100) * kPage, static_cast<char>(t)};
        const Piece taken{arena.take(piece.bytes), piece.bytes, piece.mark};
        fill(taken);
        EXPECT_TRUE(holds(taken, taken.bytes));
        arena.give(taken.at, taken.bytes);
      }
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(arena.used(), 0u);
  EXPECT_EQ(arena.held(), 0u);
}

}  // namespace
}  // namespace zeromerge

#endif
