// A decode step at its budget takes no memory and gives none back: neither by operator new, which this
// program counts, nor from the system's pages, which the ledger and the arena count. A program of its own,
// for it replaces operator new.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <utility>

#include "support/sequence.hpp"

namespace {
std::atomic<std::size_t> allocations{0};

void* counted(std::size_t bytes, std::size_t alignment) noexcept {
  ++allocations;
  return std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

void* counted_or_throw(std::size_t bytes, std::size_t alignment) {
  void* p = counted(bytes, alignment);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}

constexpr std::size_t plain = alignof(std::max_align_t);
std::size_t number(std::align_val_t a) { return static_cast<std::size_t>(a); }
}  // namespace

// Every form: std::stable_sort takes its buffer by the nothrow one, and a form left to the library would be
// one that is not counted, and a mismatch with the deletes below.
// Out of line: a compiler that sees through one half of a pair only warns of the other.
using Align = std::align_val_t;
using Quiet = const std::nothrow_t&;
[[gnu::noinline]] void* operator new(std::size_t n) { return counted_or_throw(n, plain); }
[[gnu::noinline]] void* operator new[](std::size_t n) { return counted_or_throw(n, plain); }
[[gnu::noinline]] void* operator new(std::size_t n, Align a) { return counted_or_throw(n, number(a)); }
[[gnu::noinline]] void* operator new[](std::size_t n, Align a) { return counted_or_throw(n, number(a)); }
[[gnu::noinline]] void* operator new(std::size_t n, Quiet) noexcept { return counted(n, plain); }
[[gnu::noinline]] void* operator new[](std::size_t n, Quiet) noexcept { return counted(n, plain); }
[[gnu::noinline]] void* operator new(std::size_t n, Align a, Quiet) noexcept { return counted(n, number(a)); }
[[gnu::noinline]] void* operator new[](std::size_t n, Align a, Quiet) noexcept {
  return counted(n, number(a));
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete[](void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, Align) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete[](void* p, Align) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t, Align) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete[](void* p, std::size_t, Align) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, Quiet) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete[](void* p, Quiet) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, Align, Quiet) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete[](void* p, Align, Quiet) noexcept { std::free(p); }

namespace zeromerge {
namespace {

TEST(DecodeStep, TheCountSeesAnAllocation) {
  const std::size_t before = allocations;
  ::operator delete(::operator new(8));  // as functions: a compiler may leave out a new expression
  EXPECT_GT(allocations, before);
}

void expect_no_allocation(const std::string& spec, const Executor& executor) {
  SCOPED_TRACE(spec);
  const Geometry g{.layers = 2, .query_heads = 6, .kv_heads = 2, .head_dim = 64};
  const test::Tokens t(g, 700, 3);
  CacheOptions options{.executor = executor};
  options.rope = std::make_shared<Rope>(RopeParams{.dims = g.head_dim}, g.head_dim);
  auto cache = make_cache(spec, g, std::move(options));
  std::vector<float> out(g.query_heads * g.head_dim);
  const OutView to = out_rows(out.data(), 1, g.query_heads, g.head_dim);
  const auto decode = [&](std::size_t token) {
    for (std::size_t l = 0; l < g.layers; ++l)
      cache->layer(l).decode(t.queries(token, 1), t.keys(token, 1), t.values(token, 1), to);
  };
  for (std::size_t l = 0; l < g.layers; ++l) test::prefill(cache->layer(l), t, 0, 500);
  for (std::size_t token = 500; token < 580; ++token)
    decode(token);  // the window of tokens to take back fills
  const std::size_t counted = allocations;
  const std::size_t held = cache->bytes().held;
#if defined(__linux__)
  const std::size_t pages = Arena::shared().used();
#endif
  for (std::size_t token = 580; token < t.count; ++token) decode(token);
  EXPECT_EQ(allocations, counted);
  EXPECT_EQ(cache->bytes().held, held);
#if defined(__linux__)
  EXPECT_EQ(Arena::shared().used(), pages);
#endif
}

TEST(DecodeStep, AllocatesNothingAtItsBudget) {
  for (const char* storage : {"f32", "f16", "bf16", "q8", "q4"})
    for (const char* settings : {"", ",residual=10%", ",metric=l2,residual=5"})
      expect_no_allocation("zeromerge:budget=200" + (settings + (",storage=" + std::string(storage))),
                           serial());
}

TEST(DecodeStep, AllocatesNothingWithAnyPolicy) {
  for (const char* settings : {"merge=drop", "importance=mean", "heads=adaptive", "reference=1",
                               "merge=nearest", "merge=nearest,evict=16", "replay=50%,hold=30"})
    expect_no_allocation("zeromerge:budget=200," + std::string(settings), serial());
  for (const char* spec : {"streaming:budget=200", "keydiff:budget=200", "best:budget=200",
                           "best:budget=200,storage=f16,hold=30"})
    expect_no_allocation(spec, serial());
}

TEST(DecodeStep, AllocatesNothingWithThreads) {
  expect_no_allocation("zeromerge:budget=400", threads(2));
  expect_no_allocation("zeromerge:budget=400,storage=q4", threads(2));
  expect_no_allocation("zeromerge:budget=400,storage=q4,precise=1%", threads(2));
}

// Verified batches of drafts: tokens in one call, of which the last are taken back.
TEST(TakingBack, AllocatesNothing) {
  const Geometry g{.layers = 1, .query_heads = 6, .kv_heads = 2, .head_dim = 64};
  const test::Tokens t(g, 700, 4);
  for (const char* spec : {"zeromerge:budget=200", "zeromerge:budget=200,storage=q8", "best:budget=200",
                           "zeromerge:budget=200,residual=10%,storage=q4", "keydiff:budget=200"}) {
    SCOPED_TRACE(spec);
    CacheOptions options;
    options.rope = std::make_shared<Rope>(RopeParams{.dims = g.head_dim}, g.head_dim);
    auto cache = make_cache(spec, g, std::move(options));
    std::vector<float> out(5 * g.query_heads * g.head_dim);
    const OutView to = out_rows(out.data(), 5, g.query_heads, g.head_dim);
    AnyLayer& layer = cache->layer(0);
    test::prefill(layer, t, 0, 500);
    std::size_t counted = 0, held = 0, truncated = 0;
    for (std::size_t token = 500; token + 5 < t.count; token += 2) {
      if (token == 580) counted = allocations, held = cache->bytes().held;
      layer.decode(t.queries(token, 5), t.keys(token, 5), t.values(token, 5), to);
      const std::size_t before = allocations;
      layer.truncate(token + 2);
      truncated += allocations - before;
    }
    EXPECT_EQ(truncated, 0u);
    EXPECT_EQ(allocations, counted);
    EXPECT_EQ(cache->bytes().held, held);
  }
}

}  // namespace
}  // namespace zeromerge
