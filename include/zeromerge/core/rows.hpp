// Views over the caller's buffers. Nothing is copied: a view is a pointer, an element type and two strides.
#pragma once

#include <cstddef>

#include "zeromerge/core/element.hpp"
#include "zeromerge/core/errors.hpp"

namespace zeromerge {

// Rows to read: element (token, head, dim) lies at data + token * token_stride + head * head_stride + dim *
// element size; strides are in bytes, dims are contiguous.
struct RowView {
  const void* data = nullptr;
  Element type = Element::f32;
  std::size_t tokens = 0;
  std::size_t heads = 0;
  std::size_t head_dim = 0;
  std::ptrdiff_t token_stride = 0;
  std::ptrdiff_t head_stride = 0;

  const void* row(std::size_t token, std::size_t head) const noexcept {
    return static_cast<const char*>(data) + static_cast<std::ptrdiff_t>(token) * token_stride +
           static_cast<std::ptrdiff_t>(head) * head_stride;
  }

  // The rows of `count` tokens from `first` on.
  RowView slice(std::size_t first, std::size_t count) const noexcept {
    RowView part = *this;
    part.data = static_cast<const char*>(data) + static_cast<std::ptrdiff_t>(first) * token_stride;
    part.tokens = count;
    return part;
  }
};

// Rows to write, always f32; strides in bytes.
struct OutView {
  float* data = nullptr;
  std::size_t tokens = 0;
  std::size_t heads = 0;
  std::size_t head_dim = 0;
  std::ptrdiff_t token_stride = 0;
  std::ptrdiff_t head_stride = 0;

  float* row(std::size_t token, std::size_t head) const noexcept {
    return reinterpret_cast<float*>(reinterpret_cast<char*>(data) +
                                    static_cast<std::ptrdiff_t>(token) * token_stride +
                                    static_cast<std::ptrdiff_t>(head) * head_stride);
  }
};

// A contiguous [tokens][heads][head_dim] buffer of float, f16 or bf16.
template <class T>
RowView rows(const T* data, std::size_t tokens, std::size_t heads, std::size_t head_dim) noexcept {
  const auto head_stride = static_cast<std::ptrdiff_t>(head_dim * sizeof(T));
  return {data,       element_of<T>, tokens,
          heads,      head_dim,      head_stride * static_cast<std::ptrdiff_t>(heads),
          head_stride};
}

// A contiguous f32 [tokens][heads][head_dim] buffer to write to.
inline OutView out_rows(float* data, std::size_t tokens, std::size_t heads, std::size_t head_dim) noexcept {
  const auto head_stride = static_cast<std::ptrdiff_t>(head_dim * sizeof(float));
  return {data, tokens, heads, head_dim, head_stride * static_cast<std::ptrdiff_t>(heads), head_stride};
}

namespace detail {

// Throws unless the view has this shape and memory behind it. `name` is the argument's name.
template <class View>
void check_shape(const char* name, const View& v, std::size_t tokens, std::size_t heads,
                 std::size_t head_dim) {
  if (v.tokens != tokens || v.heads != heads || v.head_dim != head_dim)
    fail(name, ": expected [tokens ", tokens, "][heads ", heads, "][head_dim ", head_dim, "], got [",
         v.tokens, "][", v.heads, "][", v.head_dim, "]");
  if (v.data == nullptr && tokens != 0)
    fail(name, ": the view has no data (null pointer) for ", tokens, " tokens");
}

}  // namespace detail
}  // namespace zeromerge
