// The ledger counts what the allocator has really given out. A program of its own, for it replaces the
// 64-byte aligned forms of operator new, which Block alone uses.
#include <gtest/gtest.h>

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>
#include <utility>

#include "support/sequence.hpp"

namespace {
std::atomic<std::size_t> aligned_bytes{0};
}

void* operator new(std::size_t bytes, std::align_val_t alignment) {
  const auto unit = static_cast<std::size_t>(alignment);
  void* memory = std::aligned_alloc(unit, (bytes + unit - 1) / unit * unit + unit);
  if (memory == nullptr) throw std::bad_alloc();
  *static_cast<std::size_t*>(memory) = bytes;
  aligned_bytes += bytes;
  return static_cast<char*>(memory) + unit;
}
void operator delete(void* data, std::align_val_t alignment) noexcept {
  if (data == nullptr) return;
  void* memory = static_cast<char*>(data) - static_cast<std::size_t>(alignment);
  aligned_bytes -= *static_cast<std::size_t*>(memory);
  std::free(memory);
}
void operator delete(void* data, std::size_t, std::align_val_t alignment) noexcept {
  operator delete(data, alignment);
}

namespace zeromerge {
namespace {

using test::Tokens;

const Geometry kGeometry{.query_heads = 6, .kv_heads = 2, .head_dim = 24};

TEST(CacheBytes, TheCountIsTheAllocators) {
  const Tokens t(kGeometry, 200, 13);
  const std::size_t before = aligned_bytes;
  {
    auto cache = test::make<f16>("budget=40,residual=2,rollback=16", kGeometry);
    const auto check = [&] {
      ASSERT_EQ(aligned_bytes - before, cache.bytes().held + cache.workspace_bytes());
      ASSERT_GT(cache.bytes().held, 0u);
    };
    // Small enough for every block to come from the allocator rather than page by page.
    for (const auto& [first, n] : {std::pair<std::size_t, std::size_t>{0, 20}, {20, 1}, {21, 60}}) {
      (void)test::prefill(cache.layer(0), t, first, n);
    }
    cache.finish_prompt();
    check();
    for (std::size_t token = 81; token < 200; ++token) {
      (void)test::decode(cache.layer(0), t, token);
      check();
    }
  }
  EXPECT_EQ(aligned_bytes, before);
}

}  // namespace
}  // namespace zeromerge
