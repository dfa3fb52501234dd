// Views over the caller's device memory: the same RowView as on the host for what is read, contiguous; and
// for outputs a view of f32, f16 or bf16.
#pragma once

#include "zeromerge/core/rows.hpp"

namespace zeromerge::cuda {

// A contiguous [tokens][heads][head_dim] buffer on the device to write to.
struct OutRows {
  void* data = nullptr;
  Element type = Element::f32;
  std::size_t tokens = 0;
  std::size_t heads = 0;
  std::size_t head_dim = 0;
};

template <class T>
OutRows out_rows(T* data, std::size_t tokens, std::size_t heads, std::size_t head_dim) noexcept {
  return {data, element_of<T>, tokens, heads, head_dim};
}

namespace detail {

// Throws unless the view has this shape and its rows lie side by side.
inline void check_contiguous(const char* name, const RowView& v, std::size_t tokens, std::size_t heads,
                             std::size_t head_dim) {
  zeromerge::detail::check_shape(name, v, tokens, heads, head_dim);
  const auto row = static_cast<std::ptrdiff_t>(head_dim * element_size(v.type));
  if (tokens != 0 && (v.head_stride != row || v.token_stride != row * static_cast<std::ptrdiff_t>(heads)))
    fail("cuda: ", name, " must be contiguous, [tokens][heads][head_dim] with strides of ",
         row * static_cast<std::ptrdiff_t>(heads), " and ", row, " bytes, got ", v.token_stride, " and ",
         v.head_stride, "; copy it");
}

inline void check_types(const RowView& q, const RowView& k, const RowView& v) {
  if (q.type != k.type || q.type != v.type)
    fail("cuda: q, k and v must have one type, got ", element_name(q.type), ", ", element_name(k.type),
         " and ", element_name(v.type), "; convert them");
}

}  // namespace detail
}  // namespace zeromerge::cuda
