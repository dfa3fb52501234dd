// q4 groups at every instruction set: what is packed reads back within half a step of the grid it shares, and
// one entry written into a standing group leaves the others where they were or re-lays its channel.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "support/isa.hpp"
#include "support/random.hpp"
#include "zeromerge/kernels/kernels.hpp"

namespace zeromerge {
namespace {

using kernels::kGroup;
using kernels::kTile;
using test::Random;

constexpr std::size_t kDims[] = {1, 5, 16, 17, 31, 32, 33, 48, 64, 72, 80, 96, 128, 256};

class Int4Codec : public test::EachIsa {};

struct Range {
  double low, high;
  explicit Range(float x) : low(static_cast<double>(x)), high(low) {}
  void take(float x) {
    low = std::min(low, static_cast<double>(x));
    high = std::max(high, static_cast<double>(x));
  }
  // Half a step, and the rounding of the grid's ends to f16.
  double half_step() const {
    return (high - low) / 30.0 * 1.01 + std::max(std::abs(low), std::abs(high)) * 0x1p-9 + 0x1p-20;
  }
};

struct KeyGroup {
  std::size_t dim, dims;
  std::vector<float> plain;  // [32][dim]
  std::vector<unsigned char> bytes;

  KeyGroup(Random& random, std::size_t head_dim)
      : dim(head_dim),
        dims(kernels::round_up(head_dim, kTile)),
        plain(test::normals(random, kGroup * head_dim)),
        bytes(kernels::KeyTiles<q4>::group_bytes(dims)) {
    kernels::encode_q4_keys(plain.data(), dim, dim, dims, bytes.data());
  }
  std::vector<float> read(std::size_t entry) const {
    std::vector<float> out(dim + 1, -77.0f);
    kernels::decode_q4_key(bytes.data(), dim, dims, entry, out.data());
    EXPECT_EQ(out.back(), -77.0f) << "written beyond";
    return out;
  }
  Range channel(std::size_t d) const {
    Range range(plain[d]);
    for (std::size_t j = 1; j < kGroup; ++j) range.take(plain[j * dim + d]);
    return range;
  }
};

TEST_P(Int4Codec, KeysReadBackWithinHalfAStepOfTheirChannel) {
  Random random(1);
  for (const std::size_t dim : kDims) {
    const KeyGroup group(random, dim);
    for (std::size_t j = 0; j < kGroup; ++j) {
      const std::vector<float> row = group.read(j);
      for (std::size_t d = 0; d < dim; ++d)
        ASSERT_NEAR(row[d], group.plain[j * dim + d], group.channel(d).half_step())
            << "dim " << dim << " entry " << j << " channel " << d;
    }
  }
}

TEST_P(Int4Codec, AKeyWrittenWithinItsChannelsLeavesTheOthersAsTheyAre) {
  Random random(2);
  for (const std::size_t dim : kDims)
    for (const std::size_t entry : {0, 15, 16, 31}) {
      KeyGroup group(random, dim);
      const KeyGroup before = group;
      std::vector<float> k(dim);
      for (std::size_t d = 0; d < dim; ++d) {
        const Range range = group.channel(d);
        k[d] = static_cast<float>(range.low + (range.high - range.low) * random.uniform());
      }
      kernels::encode_q4_key(k.data(), dim, group.dims, entry, group.bytes.data());
      for (std::size_t j = 0; j < kGroup; ++j) {
        const std::vector<float> row = group.read(j);
        if (j != entry) {
          ASSERT_EQ(row, before.read(j)) << "dim " << dim << " entry " << j;
          continue;
        }
        for (std::size_t d = 0; d < dim; ++d)
          ASSERT_NEAR(row[d], k[d], group.channel(d).half_step()) << "dim " << dim << " channel " << d;
      }
    }
}

TEST_P(Int4Codec, AKeyBeyondAChannelLaysItOutAnew) {
  Random random(3);
  for (const std::size_t dim : kDims)
    for (const std::size_t entry : {1, 30}) {
      KeyGroup group(random, dim);
      const KeyGroup before = group;
      const std::size_t far = dim / 2;
      std::vector<float> k = before.read(entry);
      k.pop_back();
      k[far] = entry == 1 ? 40.0f : -40.0f;
      kernels::encode_q4_key(k.data(), dim, group.dims, entry, group.bytes.data());
      Range range = group.channel(far);
      range.take(k[far]);
      for (std::size_t j = 0; j < kGroup; ++j) {
        const std::vector<float> row = group.read(j), old = before.read(j);
        for (std::size_t d = 0; d < dim; ++d)
          if (d == far)
            ASSERT_NEAR(row[d], j == entry ? k[far] : old[far], range.half_step()) << "entry " << j;
          else
            ASSERT_NEAR(row[d], old[d], 1e-6f) << "entry " << j << " channel " << d;
      }
    }
}

TEST_P(Int4Codec, ValuesReadBackWithinHalfAStepOfTheirRowsChannels) {
  Random random(4);
  for (const std::size_t dim : kDims) {
    const std::size_t row_size = kernels::round_up(dim, kTile);
    std::vector<unsigned char> tile(kernels::ValueRows<q4>::tile_bytes(row_size), 0xff);
    const std::vector<float> plain = test::normals(random, kTile * dim);
    for (std::size_t j = 0; j < kTile; ++j)
      kernels::encode_q4_value(plain.data() + j * dim, dim, row_size, j, tile.data());
    for (std::size_t j = 0; j < kTile; ++j) {
      const float* row = plain.data() + j * dim;
      std::vector<float> out(dim + 1, -77.0f);
      kernels::decode_q4_value(tile.data(), dim, row_size, j, out.data());
      ASSERT_EQ(out.back(), -77.0f) << "written beyond";
      for (std::size_t d = 0; d < dim; ++d) {
        Range range(row[d]);
        const std::size_t first = d / kernels::kChannels * kernels::kChannels;
        for (std::size_t i = first; i < std::min(dim, first + kernels::kChannels); ++i) range.take(row[i]);
        ASSERT_NEAR(out[d], row[d], range.half_step()) << "dim " << dim << " entry " << j << " channel " << d;
      }
    }
  }
}

TEST_P(Int4Codec, OneValueForAllIsThatValue) {
  const std::size_t dim = 64;
  const std::vector<float> same(kGroup * dim, 0.3125f);
  std::vector<unsigned char> group(kernels::KeyTiles<q4>::group_bytes(dim));
  std::vector<unsigned char> tile(kernels::ValueRows<q4>::tile_bytes(dim));
  kernels::encode_q4_keys(same.data(), dim, dim, dim, group.data());
  kernels::encode_q4_value(same.data(), dim, dim, 3, tile.data());
  std::vector<float> k(dim), v(dim);
  kernels::decode_q4_key(group.data(), dim, dim, 7, k.data());
  kernels::decode_q4_value(tile.data(), dim, dim, 3, v.data());
  EXPECT_EQ(k, std::vector<float>(dim, 0.3125f));
  EXPECT_EQ(v, k);
}

INSTANTIATE_TEST_SUITE_P(Levels, Int4Codec, testing::ValuesIn(test::available_isas()), test::isa_of);

}  // namespace
}  // namespace zeromerge
