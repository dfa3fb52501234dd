// One decode step of a few heads, compiled with a kernel that is as it should be or broken in one place
// (CMakeLists.txt). Says "agrees", what the emulation found, or where the outputs are wrong.
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "support/attention.hpp"
#include "support/device_heads.hpp"

namespace {

using namespace zeromerge;

constexpr unsigned kGroup = 4, kDim = 64;
constexpr float kScale = 0.125f;

struct Step {
  std::vector<test::PlainHead> heads;
  std::vector<float> q, k, v;
  std::vector<float> out;
};

// The launches of a step for one shape, which compiles in a fraction of the time that all of them take.
void launch(const cuda::DecodeStep& s, const cuda::DecodePlan& plan) {
  const cuda::Partials partials = plan.partials(s.floats, s.logits);
  cuda::detail::launch_attention_as<f16, f16, kGroup, kDim>(
      {s.heads, partials, s.q, s.k, s.v, s.type, s.scale * cuda::kLog2E, 0.0f, s.batch}, plan, {});
  const cuda::ScoreArguments score = {s.rule, s.least_value, s.least_slot, plan.score_blocks};
  cuda::launch_combine_and_score({s.heads, partials, {s.out, s.lse, nullptr, s.out_type}, score, s.batch, 1u},
                                 plan, {});
  cuda::launch_evict<f16, f16>({s.heads, s.rule, s.least_value, s.least_slot, plan.score_blocks, s.batch},
                               plan, {});
}

void run(Step& step) {
  const auto count = static_cast<unsigned>(step.heads.size());
  const test::DeviceHeads<f16> device(step.heads, kDim, true, true);
  std::size_t most = 0;
  for (const auto& head : step.heads) most = std::max(most, head.size() + 1);
  const auto plan = cuda::plan_decode(1, count, kGroup, kDim, static_cast<unsigned>(most));
  const test::StepBuffers buffers(plan, true, 1, count * kGroup);
  const auto q = test::uploaded(step.q), k = test::uploaded(step.k), v = test::uploaded(step.v);
  cuda::DecodeStep s = {};
  s.heads = {device.rows(), device.states(), nullptr, count, kGroup, kDim};
  s.rule.decay = 0.9f;
  s.rule.block = 1;
  s.q = q.data(), s.k = k.data(), s.v = v.data();
  s.type = s.out_type = Element::f32;
  s.out = buffers.out.data(), s.lse = buffers.lse.data();
  s.scale = kScale, s.batch = 1;
  s.floats = buffers.floats.data(), s.logits = buffers.logits.data();
  s.least_value = buffers.least_value.data(), s.least_slot = buffers.least_slot.data();
  launch(s, plan);
  step.out = test::downloaded(buffers.out);
  step.heads = device.read();
}

// Compares with the textbook over what was stored; `bias`: of the heads before the step.
std::string compare(const Step& step, const std::vector<std::vector<float>>& bias) {
  for (std::size_t h = 0; h < step.heads.size(); ++h)
    for (std::size_t g = 0; g < kGroup; ++g) {
      const std::size_t query = (h * kGroup + g) * kDim;
      const test::PlainHead& head = step.heads[h];
      const auto expected = test::attention(
          step.q.data() + query, kDim, head.size(), static_cast<double>(kScale), 0.0,
          [&](std::size_t j) { return head.keys[j].data(); },
          [&](std::size_t j) { return head.values[j].data(); },
          [&](std::size_t j) { return j < bias[h].size() ? bias[h][j] : 0.0f; });
      for (std::size_t d = 0; d < kDim; ++d)
        if (!(std::abs(static_cast<double>(step.out[query + d]) - expected.out[d]) < 3e-5))
          return "wrong output: head " + std::to_string(h) + ", query head " + std::to_string(g);
    }
  return "agrees";
}

std::string outcome() {
  test::Random random(3);
  Step step;
  std::vector<std::vector<float>> bias;
  for (const std::size_t entries : {700u, 70u}) {  // several rounds of tiles for each warp, and one
    step.heads.push_back(test::random_head(random, entries, kDim, true));
    bias.push_back(step.heads.back().bias);
  }
  step.q = test::normals(random, step.heads.size() * kGroup * kDim);
  step.k = test::normals(random, step.heads.size() * kDim);
  step.v = test::normals(random, step.heads.size() * kDim);
  try {
    run(step);
  } catch (const simt::Fault& fault) {
    return std::string("fault: ") + fault.what();
  }
  return compare(step, bias);
}

}  // namespace

int main() { std::puts(outcome().c_str()); }
