// A cache on the host and one on the device, or its emulation, with one policy, fed with the same tokens.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "support/device_cache.hpp"
#include "support/isa.hpp"
#include "zeromerge/cache/presets.hpp"

namespace zeromerge::test {

// D: a cache on the device. All layers of a sequence get the same tokens.
template <class D>
class CachePair {
 public:
  CachePair(const std::string& host_spec, std::unique_ptr<D> device, std::size_t longest, std::uint64_t seed,
            std::size_t chunk = 512)
      : host_(make_cache(host_spec, device->geometry(), host_options(*device, chunk))),
        device_(std::move(device)),
        tolerance_(host_spec.find("q8") == std::string::npos ? 1e-3 : 4e-3),
        taken_(device_->sequences(), 0) {
    for (std::size_t s = 0; s < device_->sequences(); ++s)
      tokens_.emplace_back(device_->geometry(), longest, seed + s);
  }

  D& device() { return *device_; }
  AnyCache& host() { return *host_; }
  const Geometry& geometry() const { return device_->geometry(); }

  // The next n tokens of a sequence as a prompt's call.
  void prompt(std::size_t s, std::size_t n) {
    for (std::size_t l = 0; l < geometry().layers; ++l) {
      const auto expected = prefill(host_->layer(l, s), tokens_[s], taken_[s], n);
      const auto got = prefill_device(*device_, l, s, tokens_[s], taken_[s], n);
      EXPECT_LT(difference(got, expected.data()), tolerance_)
          << "sequence " << s << ", prompt from " << taken_[s];
    }
    taken_[s] += n;
  }
  void finish(std::size_t s) {
    host_->finish_prompt(s);
    device_->finish_prompt(s, {});
  }
  // A prompt that the host takes and compresses and the device takes over.
  void upload(std::size_t s, std::size_t n) {
    for (std::size_t l = 0; l < geometry().layers; ++l) prefill(host_->layer(l, s), tokens_[s], taken_[s], n);
    taken_[s] += n;
    host_->finish_prompt(s);
    device_->upload(s, *host_, s, {});
  }
  // Both go back to where both were, perhaps in another sequence.
  struct Checkpoint {
    std::vector<std::unique_ptr<AnyCheckpoint>> host;
    cuda::Checkpoint device;
    std::size_t taken;
  };
  Checkpoint checkpoint(std::size_t s) {
    return {host_->checkpoint(s), device_->checkpoint(s, {}), taken_[s]};
  }
  void rollback(const Checkpoint& to, std::size_t s) {
    host_->rollback(to.host, s);
    device_->rollback(to.device, s, {});
    taken_[s] = to.taken;
  }

  // Logits without a value, the same for every layer.
  void set_sinks(const std::vector<float>& sinks) {
    std::vector<float> all;
    for (std::size_t l = 0; l < geometry().layers; ++l) {
      all.insert(all.end(), sinks.begin(), sinks.end());
      for (std::size_t s = 0; s < device_->sequences(); ++s) host_->layer(l, s).set_sink_logits(sinks);
    }
    sinks_ = uploaded(all);
    device_->set_sink_logits(sinks_.data());
  }

  // What the sequences take next, side by side, and what the host makes of it: [layers].
  BatchTokens next(const std::vector<std::size_t>& sequences) {
    BatchTokens given;
    expected_.assign(geometry().layers, {});
    for (const std::size_t s : sequences) {
      for (std::size_t l = 0; l < geometry().layers; ++l) {
        const auto out = decode(host_->layer(l, s), tokens_[s], taken_[s]);
        expected_[l].insert(expected_[l].end(), out.begin(), out.end());
      }
      given.add(tokens_[s], taken_[s]++);
    }
    return given;
  }
  const std::vector<float>& expected(std::size_t layer) const { return expected_[layer]; }

  void steps(const std::vector<std::size_t>& sequences, std::size_t count) {
    const cuda::Batch batch = device_->batch(sequences, {});
    CacheStep buffers(geometry(), sequences.size());
    for (std::size_t i = 0; i < count; ++i) {
      buffers.fill(next(sequences), {});
      for (std::size_t l = 0; l < geometry().layers; ++l) {
        buffers.decode(*device_, l, batch, {});
        ASSERT_LT(difference(buffers.out({}), expected(l).data()), tolerance_)
            << "layer " << l << " after " << taken_[sequences[0]] << " tokens of sequence " << sequences[0];
      }
    }
  }

  // Every slot of every head holds the same entry. tolerance: of stored numbers, whose last bit may differ.
  void expect_equal_heads(double tolerance) {
    for (std::size_t l = 0; l < geometry().layers; ++l)
      for (std::size_t s = 0; s < tokens_.size(); ++s)
        for (std::size_t h = 0; h < geometry().kv_heads; ++h) {
          SCOPED_TRACE("layer " + std::to_string(l) + " sequence " + std::to_string(s) + " head " +
                       std::to_string(h));
          expect_equal_head(host_->layer(l, s), h, device_->head(l, s, h, {}), tolerance);
          if (::testing::Test::HasFatalFailure()) return;
        }
  }

 private:
  void expect_equal_head(const AnyLayer& expected, std::size_t h, const cuda::HeadCopy& got,
                         double tolerance) {
    const std::size_t dim = geometry().head_dim;
    ASSERT_EQ(got.entries(), expected.entries(h));
    std::vector<float> row(dim);
    const auto expect_row = [&](const std::vector<float>& rows, std::size_t j, const char* what) {
      const auto begin = rows.begin() + static_cast<std::ptrdiff_t>(j * dim);
      EXPECT_LT(difference({begin, begin + static_cast<std::ptrdiff_t>(dim)}, row.data()), tolerance)
          << what << " in slot " << j;
    };
    for (std::size_t j = 0; j < got.entries(); ++j) {
      ASSERT_EQ(got.position[j], expected.position(h, j)) << "slot " << j;
      EXPECT_EQ(got.mass[j], expected.mass(h, j)) << "slot " << j;
      EXPECT_NEAR(got.score[j], expected.score(h, j), 1e-3 * (std::abs(expected.score(h, j)) + 1e-3))
          << "slot " << j;
      expected.read_key(h, j, row.data());
      expect_row(got.keys, j, "key");
      expected.read_value(h, j, row.data());
      expect_row(got.values, j, "value");
    }
  }

  static CacheOptions host_options(const D& device, std::size_t chunk) {
    CacheOptions options{.sequences = device.sequences(), .chunk = chunk};
    const std::size_t dim = device.geometry().head_dim;
    options.rope = std::make_shared<Rope>(RopeParams{.dims = dim}, dim);
    return options;
  }

  // Wider instruction sets multiply rounded queries where keys are bf16 or q8; a device does not.
  IsaScope through_f32_{Isa::portable};
  std::unique_ptr<AnyCache> host_;
  std::unique_ptr<D> device_;
  double tolerance_;  // of outputs, relative; bytes round a merged number the other way now and then
  cuda::Buffer<float> sinks_;
  std::vector<Tokens> tokens_;                // [sequences]
  std::vector<std::size_t> taken_;            // [sequences]
  std::vector<std::vector<float>> expected_;  // [layers] of the last step
};

inline CachePair<cuda::AnyCache> cache_pair(const std::string& spec, const Geometry& geometry,
                                            const cuda::CacheOptions& options, std::size_t longest,
                                            std::uint64_t seed) {
  return {spec, cuda::make_cache(spec, geometry, options), longest, seed, options.chunk};
}

}  // namespace zeromerge::test
