// The device vocabulary (zeromerge/kernels/cuda/device.hpp) under emulation: spans hand out proxies that
// check each access, and whatever makes threads wait for each other switches fibers. Places are those of the
// kernel's source, for the reports.
#pragma once

#include <bit>
#include <cmath>
#include <type_traits>

#include "simt/block.hpp"

#define ZEROMERGE_KERNEL(threads) inline void
#define ZEROMERGE_KERNEL_RESIDENT(threads, blocks) inline void
#define ZEROMERGE_DEVICE inline
#define ZEROMERGE_HOST_DEVICE inline
#define ZEROMERGE_UNROLL_DEVICE
#define ZEROMERGE_UNROLL_DEVICE_BY(times)

namespace zeromerge::cuda {

using simt::Block;
using simt::Place;

inline unsigned thread_index() { return Block::current().thread(); }
inline unsigned block_threads() { return Block::current().threads(); }
inline unsigned lane_index() { return thread_index() % kWarp; }
inline unsigned warp_index() { return thread_index() / kWarp; }
inline unsigned block_warps() { return (block_threads() + kWarp - 1) / kWarp; }
inline unsigned block_x() { return Block::current().block().x; }
inline unsigned block_y() { return Block::current().block().y; }
inline unsigned block_z() { return Block::current().block().z; }
inline unsigned grid_x() { return Block::current().grid().x; }
inline unsigned grid_y() { return Block::current().grid().y; }
inline unsigned grid_z() { return Block::current().grid().z; }

inline void sync_block(Place place = Place::current()) { Block::current().sync_block(place); }
inline void sync_warp(std::uint32_t mask = kAllLanes, Place place = Place::current()) {
  Block::current().meet(simt::WarpKind::sync, mask, 0, place);
}

template <class U, class T>
U bits_of(T v) {
  static_assert(sizeof(U) == sizeof(T));
  return std::bit_cast<U>(v);
}

namespace detail {
// `source` is what the device computes, lanes beyond the warp give the caller's own value.
template <class T>
T shuffle_from(std::uint32_t mask, T v, unsigned source, Place place) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8), "shuffles move 4 or 8 bytes");
  using U = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  Block& block = Block::current();
  const auto& values = block.meet(simt::WarpKind::shuffle, mask, std::bit_cast<U>(v), place);
  if (source >= kWarp) return v;
  if ((mask >> source & 1u) == 0)
    block.fault("shuffle at ", simt::At{place}, " reads lane ", source, ", which the mask ", Block::Hex{mask},
                " leaves out");
  return std::bit_cast<T>(static_cast<U>(values[source]));
}
}  // namespace detail

template <class T>
T shuffle(std::uint32_t mask, T v, unsigned lane, Place place = Place::current()) {
  return detail::shuffle_from(mask, v, lane % kWarp, place);
}
template <class T>
T shuffle_xor(std::uint32_t mask, T v, unsigned bits, Place place = Place::current()) {
  return detail::shuffle_from(mask, v, lane_index() ^ bits, place);
}
template <class T>
T shuffle_down(std::uint32_t mask, T v, unsigned by, Place place = Place::current()) {
  return detail::shuffle_from(mask, v, lane_index() + by, place);
}
template <class T>
T shuffle_up(std::uint32_t mask, T v, unsigned by, Place place = Place::current()) {
  return detail::shuffle_from(mask, v, by > lane_index() ? kWarp : lane_index() - by, place);
}
inline std::uint32_t ballot(std::uint32_t mask, bool p, Place place = Place::current()) {
  const auto& values = Block::current().meet(simt::WarpKind::vote, mask, p ? 1 : 0, place);
  std::uint32_t bits = 0;
  for (unsigned lane = 0; lane < kWarp; ++lane)
    if ((mask >> lane & 1u) != 0 && values[lane] != 0) bits |= 1u << lane;
  return bits;
}
inline bool any(std::uint32_t mask, bool p, Place place = Place::current()) {
  return ballot(mask, p, place) != 0;
}
inline bool all(std::uint32_t mask, bool p, Place place = Place::current()) {
  return ballot(mask, p, place) == mask;
}

namespace detail {

// Where a value lies; converts to it, and takes it. S: SharedPlace or GlobalPlace.
template <class T, class S>
class Element {
 public:
  using Value = std::remove_const_t<T>;
  explicit Element(T* at) : at_(at) {}
  Element(const Element&) = default;

  operator Value() const { return load(); }
  Value operator=(Value v) const {
    store(v);
    return v;
  }
  Value operator=(const Element& other) const { return *this = other.load(); }
  template <class V>
  Value operator+=(V v) const {
    return *this = static_cast<Value>(load() + v);
  }
  template <class V>
  Value operator-=(V v) const {
    return *this = static_cast<Value>(load() - v);
  }
  template <class V>
  Value operator*=(V v) const {
    return *this = static_cast<Value>(load() * v);
  }
  template <class V>
  Value operator|=(V v) const {
    return *this = static_cast<Value>(load() | v);
  }
  Value operator++() const { return *this += Value{1}; }

 private:
  Value load() const {
    Value v;
    std::memcpy(static_cast<void*>(&v), S::access(at_, sizeof v, false), sizeof v);
    return v;
  }
  void store(Value v) const {
    static_assert(!std::is_const_v<T>, "a span of const elements is not written to");
    std::memcpy(S::access(at_, sizeof v, true), &v, sizeof v);
  }
  T* at_;
};

struct SharedPlace {
  static std::byte* access(const void* p, std::size_t bytes, bool write, bool atomic = false) {
    Block::current().access_shared(p, bytes, write, atomic);
    return static_cast<std::byte*>(const_cast<void*>(p));
  }
};
struct GlobalPlace {
  static std::byte* access(const void* p, std::size_t bytes, bool write, bool atomic = false) {
    return Block::current().access_global(p, bytes, write, atomic);
  }
};

// Pointers into device memory carry a tag, so they are moved as numbers: no object lies where they point.
template <class T>
T* advance(T* p, std::size_t elements) {
  return reinterpret_cast<T*>(reinterpret_cast<std::uintptr_t>(p) + elements * sizeof(T));
}

// What both kinds of span share. Derived gives the name that part() and as() return.
template <class T, class Count, class S, template <class> class Derived>
class Span {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  Span() = default;
  Span(T* data, Count count) : data_(data), count_(count) {}

  Element<T, S> operator[](std::size_t i) const { return Element<T, S>(element(i, 1)); }
  std::remove_const_t<T> at(std::size_t i) const { return (*this)[i]; }
  Derived<T> part(std::size_t first, std::size_t count) const {
    return {element(first, count), static_cast<Count>(count)};
  }
  template <class U>
  Derived<U> as() const {
    return {reinterpret_cast<U*>(data_), static_cast<Count>(count_ * sizeof(T) / sizeof(U))};
  }
  T* raw() const { return data_; }

  // Where `count` elements from i on begin; all of them must be in the span.
  T* element(std::size_t i, std::size_t count) const {
    if (i > count_ || count > count_ - i) {
      if (!Block::inside()) throw simt::Fault("a part that is not inside its span");
      Block::current().fault("out of range: elements ", i, " to ", i + count, " of a span of ", count_);
    }
    return advance(data_, i);
  }

 protected:
  T* data_ = nullptr;
  Count count_ = 0;
};

}  // namespace detail

template <class T>
class SharedSpan : public detail::Span<T, unsigned, detail::SharedPlace, SharedSpan> {
 public:
  using Place = detail::SharedPlace;
  using detail::Span<T, unsigned, Place, cuda::SharedSpan>::Span;
  template <class U>
  SharedSpan(SharedSpan<U> other) : SharedSpan(static_cast<T*>(other.raw()), other.size()) {}
  unsigned size() const { return this->count_; }
};

template <class T>
class GlobalSpan : public detail::Span<T, std::size_t, detail::GlobalPlace, GlobalSpan> {
 public:
  using Place = detail::GlobalPlace;
  using detail::Span<T, std::size_t, Place, cuda::GlobalSpan>::Span;
  template <class U>
  GlobalSpan(GlobalSpan<U> other) : GlobalSpan(static_cast<T*>(other.raw()), other.emulated_size()) {}
  explicit operator bool() const { return this->data_ != nullptr; }
  std::size_t emulated_size() const { return this->count_; }  // the device does not know it
};

class SharedMemory {
 public:
  template <class T>
  SharedSpan<T> take(unsigned count) {
    Block& block = Block::current();
    const std::size_t bytes = std::size_t{count} * sizeof(T);
    if (used_ + bytes > block.shared_bytes())
      block.fault("out of range: ", bytes, " bytes of shared memory after ", used_, ", the launch gives ",
                  block.shared_bytes());
    T* data = reinterpret_cast<T*>(block.shared() + used_);
    used_ += (bytes + 15) / 16 * 16;
    return {data, count};
  }

 private:
  std::size_t used_ = 0;
};

namespace detail {
template <class Span>
auto* place16(Span s, std::size_t i) {
  using T = std::remove_pointer_t<decltype(s.raw())>;
  static_assert(16 % sizeof(T) == 0);
  T* at = s.element(i, 16 / sizeof(T));
  Block::current().check_alignment(at, 16, "access");
  return at;
}
template <class Span>
Vec16 load16(Span s, std::size_t i) {
  Vec16 v;
  std::memcpy(&v, Span::Place::access(place16(s, i), 16, false), 16);
  return v;
}
template <class Span>
void store16(Span s, std::size_t i, Vec16 v) {
  static_assert(!std::is_const_v<std::remove_pointer_t<decltype(s.raw())>>);
  std::memcpy(Span::Place::access(place16(s, i), 16, true), &v, 16);
}
}  // namespace detail

template <class T>
Vec16 load16(SharedSpan<T> s, std::size_t i) {
  return detail::load16(s, i);
}
template <class T>
Vec16 load16(GlobalSpan<T> s, std::size_t i) {
  return detail::load16(s, i);
}
template <class T>
void store16(SharedSpan<T> s, std::size_t i, Vec16 v) {
  detail::store16(s, i, v);
}
template <class T>
void store16(GlobalSpan<T> s, std::size_t i, Vec16 v) {
  detail::store16(s, i, v);
}

template <class T, class U>
void copy_async16(SharedSpan<T> to, std::size_t i, GlobalSpan<U> from, std::size_t j, bool valid = true) {
  static_assert(!std::is_const_v<T>);
  Block::current().copy_async(detail::place16(to, i), valid ? detail::place16(from, j) : nullptr, !valid);
}
inline void copy_commit() { Block::current().copy_commit(); }
template <unsigned kGroups>
void copy_wait() {
  Block::current().copy_wait(kGroups);
}

inline float widen(float x) { return x; }
inline float widen(f16 x) { return to_f32(x); }
inline float widen(bf16 x) { return to_f32(x); }
inline float widen(std::int8_t x) { return static_cast<float>(x); }
template <class T>
T narrow(float x) {
  return from_f32<T>(x);
}
inline Pair widen2_f16(std::uint32_t w) {
  return {to_f32(f16{static_cast<std::uint16_t>(w)}), to_f32(f16{static_cast<std::uint16_t>(w >> 16)})};
}
inline Pair widen2_bf16(std::uint32_t w) {
  return {to_f32(bf16{static_cast<std::uint16_t>(w)}), to_f32(bf16{static_cast<std::uint16_t>(w >> 16)})};
}
inline Quad widen4_q8(std::uint32_t w) {
  const auto byte = [w](int i) { return static_cast<float>(static_cast<std::int8_t>(w >> (8 * i))); };
  return {byte(0), byte(1), byte(2), byte(3)};
}
inline int round_to_int(float x) { return static_cast<int>(std::nearbyintf(x)); }

inline unsigned count_bits(std::uint32_t x) { return static_cast<unsigned>(std::popcount(x)); }

inline float exp2_fast(float x) { return std::exp2(x); }
inline float log2_fast(float x) { return std::log2(x); }
inline float sqrt_exact(float x) { return std::sqrt(x); }

namespace detail {
template <class Span, class T, class Change>
T atomic(Span s, std::size_t i, Change change) {
  std::byte* at = Span::Place::access(s.element(i, 1), sizeof(T), true, true);
  T before;
  std::memcpy(&before, at, sizeof before);
  const T after = change(before);
  std::memcpy(at, &after, sizeof after);
  return before;
}
}  // namespace detail

template <class S, class T>
T atomic_add(S s, std::size_t i, T v) {
  return detail::atomic<S, T>(s, i, [v](T x) { return static_cast<T>(x + v); });
}

}  // namespace zeromerge::cuda
