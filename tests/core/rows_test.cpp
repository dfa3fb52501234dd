#include "zeromerge/core/rows.hpp"

#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

namespace zeromerge {
namespace {

TEST(Rows, AContiguousBufferIsTokensOfHeadsOfDims) {
  std::vector<float> x(2 * 3 * 4);
  std::iota(x.begin(), x.end(), 0.0f);
  const RowView view = rows(x.data(), 2, 3, 4);
  EXPECT_EQ(view.type, Element::f32);
  EXPECT_EQ(view.row(1, 2), x.data() + 20);
  EXPECT_EQ(rows(static_cast<const bf16*>(nullptr), 1, 1, 1).type, Element::bf16);
}

TEST(Rows, ASliceStartsAtItsFirstToken) {
  std::vector<f16> x(5 * 2 * 8);
  const RowView part = rows(x.data(), 5, 2, 8).slice(3, 2);
  EXPECT_EQ(part.tokens, 2u);
  EXPECT_EQ(part.row(1, 1), x.data() + 4 * 16 + 8);
}

TEST(Rows, StridesAreBytesAndMayBeNegative) {
  std::vector<float> x(24);
  RowView view = rows(x.data(), 3, 2, 4);
  std::swap(view.token_stride, view.head_stride);  // head-major
  EXPECT_EQ(view.row(2, 1), x.data() + 2 * 4 + 8);
  OutView out = out_rows(x.data() + 16, 3, 2, 4);
  out.token_stride = -out.token_stride;
  EXPECT_EQ(out.row(2, 1), x.data() + 4);
}

std::string refusal(const RowView& view, std::size_t tokens, std::size_t heads, std::size_t head_dim) {
  try {
    detail::check_shape("k", view, tokens, heads, head_dim);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Rows, AWrongShapeIsRefusedWithBothShapes) {
  std::vector<float> x(24);
  const RowView view = rows(x.data(), 3, 2, 4);
  EXPECT_EQ(refusal(view, 3, 2, 4), "");
  EXPECT_EQ(refusal(view, 3, 2, 5), "k: expected [tokens 3][heads 2][head_dim 5], got [3][2][4]");
  EXPECT_NE(refusal(view, 2, 2, 4), "");
  EXPECT_NE(refusal(view, 3, 1, 4), "");
}

TEST(Rows, TokensWithoutMemoryAreRefused) {
  const RowView nothing = rows(static_cast<const float*>(nullptr), 2, 1, 4);
  EXPECT_NE(refusal(nothing, 2, 1, 4).find("no data"), std::string::npos);
  EXPECT_EQ(refusal(rows(static_cast<const float*>(nullptr), 0, 1, 4), 0, 1, 4), "");
}

}  // namespace
}  // namespace zeromerge
