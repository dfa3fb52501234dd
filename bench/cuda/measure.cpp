#include "cuda/measure.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "zeromerge/cuda/decode_step.hpp"

namespace bench {
namespace {

using namespace zeromerge;
using zeromerge::cuda::Buffer;

template <class T>
Buffer<T> uploaded(const std::vector<T>& from) {
  Buffer<T> buffer(from.size());
  cuda::copy_in(buffer.data(), from.data(), buffer.bytes(), {});
  cuda::synchronise({});
  return buffer;
}

// Microseconds that one call of body takes on the stream: medians over repetitions of a captured call.
template <class Body>
double time_us(std::size_t repetitions, const Body& body) {
  const cuda::OwnedStream stream;
  const cuda::Graph graph = cuda::capture(stream, [&] { body(cuda::Stream(stream)); });
  for (int warm = 0; warm < 3; ++warm) graph.replay(stream);
  std::vector<double> times;
  cuda::Stopwatch watch;
  for (std::size_t i = 0; i < repetitions; ++i) {
    watch.start(stream);
    graph.replay(stream);
    times.push_back(1e3 * static_cast<double>(watch.stop(stream)));
  }
  std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2), times.end());
  return times[times.size() / 2];
}

double copy_gb_per_s(std::size_t memory_bytes) {
  const std::size_t bytes = std::min<std::size_t>(memory_bytes / 8, std::size_t{2} << 30);
  const Buffer<unsigned char> from(bytes);
  const Buffer<unsigned char> to(bytes);
  cuda::fill_bytes(from.data(), 0x3c, bytes, {});
  cuda::synchronise({});
  const double us =
      time_us(11, [&](cuda::Stream stream) { cuda::copy_within(to.data(), from.data(), bytes, stream); });
  return 2.0 * static_cast<double>(bytes) / (us * 1e3);
}

// Rows of random numbers as they are stored: bytes are as good as any for q8.
template <class T>
std::vector<unsigned char> random_rows(std::size_t rows, unsigned head_dim, std::uint64_t seed) {
  std::vector<unsigned char> bytes(rows * cuda::row_bytes<T>(head_dim), 0);
  const std::vector<float> numbers = random_numbers(rows * head_dim, seed);
  for (std::size_t r = 0; r < rows; ++r)
    for (unsigned d = 0; d < head_dim; ++d) {
      const float x = numbers[r * head_dim + d];
      unsigned char* to = bytes.data() + r * cuda::row_bytes<T>(head_dim) + d * cuda::stored_bytes<T>;
      if constexpr (cuda::has_scale<T>) {
        *to = static_cast<unsigned char>(static_cast<int>(std::clamp(32.0f * x, -127.0f, 127.0f)));
      } else {
        const T stored = from_f32<T>(x);
        std::copy_n(reinterpret_cast<const unsigned char*>(&stored), sizeof stored, to);
      }
    }
  return bytes;
}

// One layer of a batch whose heads are at their budget.
template <class T>
class Layer {
 public:
  Layer(const StepProblem& p, const Buffer<unsigned char>& rows) : p_(p) {
    const std::size_t heads = p.sequences * p.shape.kv_heads;
    const std::size_t room = p.entries + 1;
    const auto dim = static_cast<unsigned>(p.shape.head_dim);
    const std::size_t head_bytes = room * cuda::row_bytes<T>(dim);
    keys_ = Buffer<unsigned char>(heads * head_bytes);
    values_ = Buffer<unsigned char>(heads * head_bytes);
    for (auto* buffer : {&keys_, &values_})
      for (std::size_t h = 0; h < heads; ++h)
        cuda::copy_within(buffer->data() + h * head_bytes, rows.data(), head_bytes, {});
    std::vector<std::uint32_t> position(room);
    for (std::size_t j = 0; j < room; ++j) position[j] = static_cast<std::uint32_t>(j);
    std::vector<float> score = random_numbers(room, 3);
    for (float& s : score) s = std::abs(s);
    fields_.push_back(repeated(score, heads));
    fields_.push_back(repeated(std::vector<float>(room, 1.0f), heads));  // mass
    fields_.push_back(repeated(std::vector<float>(room, 0.0f), heads));  // bias
    fields_.push_back(
        repeated(std::vector<float>(cuda::has_scale<T> ? room : 0, 1.0f / 32.0f), heads));  // of keys
    fields_.push_back(repeated(std::vector<float>(cuda::has_scale<T> ? room : 0, 1.0f / 32.0f), heads));
    position_ = repeated(position, heads);
    describe(heads, room, head_bytes);
  }

  cuda::BatchHeads heads() const {
    return {rows_.data(),
            states_.data(),
            nullptr,
            static_cast<unsigned>(p_.shape.kv_heads),
            static_cast<unsigned>(p_.shape.query_heads / p_.shape.kv_heads),
            static_cast<unsigned>(p_.shape.head_dim)};
  }

 private:
  template <class E>
  static Buffer<E> repeated(const std::vector<E>& one, std::size_t times) {
    std::vector<E> all;
    for (std::size_t i = 0; i < times; ++i) all.insert(all.end(), one.begin(), one.end());
    return uploaded(all);
  }
  void describe(std::size_t heads, std::size_t room, std::size_t head_bytes) {
    std::vector<cuda::HeadRows> rows;
    std::vector<cuda::HeadState> states;
    const auto entries = static_cast<std::uint32_t>(p_.entries);
    for (std::size_t h = 0; h < heads; ++h) {
      const auto field = [&](std::size_t i) {
        return fields_[i].size() == 0 ? nullptr : fields_[i].data() + h * room;
      };
      rows.push_back({keys_.data() + h * head_bytes, values_.data() + h * head_bytes, field(3), field(4),
                      field(0), field(1), field(2), position_.data() + h * room,
                      static_cast<std::uint32_t>(room)});
      states.push_back({entries, entries, entries, 4, 1, entries * 2 / 5, 1, 0, 0, 1});
    }
    rows_ = uploaded(rows);
    states_ = uploaded(states);
  }

  StepProblem p_;
  Buffer<unsigned char> keys_, values_;
  std::vector<Buffer<float>> fields_;  // score, mass, bias, scales of keys and of values
  Buffer<std::uint32_t> position_;
  Buffer<cuda::HeadRows> rows_;
  Buffer<cuda::HeadState> states_;
};

template <class T>
StepTimes measure_as(const StepProblem& p, std::size_t repetitions) {
  const cuda::Limits limits = cuda::limits();
  const auto dim = static_cast<unsigned>(p.shape.head_dim);
  const std::size_t heads = p.sequences * p.shape.kv_heads;
  const double entry_bytes = 2.0 * (cuda::row_bytes<T>(dim) + (cuda::has_scale<T> ? 4.0 : 0.0));
  const double bytes = static_cast<double>(heads * p.entries) * entry_bytes;
  const auto layers = static_cast<std::size_t>(4.0 * static_cast<double>(limits.l2_bytes) / bytes) + 2;
  const Buffer<unsigned char> rows = uploaded(random_rows<T>(p.entries + 1, dim, 1));
  std::vector<Layer<T>> all;
  for (std::size_t l = 0; l < layers; ++l) all.emplace_back(p, rows);
  cuda::synchronise({});

  const auto plan = cuda::plan_decode(limits.multiprocessors, heads,
                                      static_cast<unsigned>(p.shape.query_heads / p.shape.kv_heads), dim,
                                      static_cast<unsigned>(p.entries + 1));
  const Buffer<float> floats(plan.partial_floats()), logits(plan.logit_floats()),
      least_value(plan.least_count());
  const Buffer<unsigned> least_slot(plan.least_count());
  const std::size_t queries = p.sequences * p.shape.query_heads * p.shape.head_dim;
  const Buffer<float> q = uploaded(random_numbers(queries, 5));
  const Buffer<float> kv = uploaded(random_numbers(heads * p.shape.head_dim, 6));
  const Buffer<float> out(queries);

  cuda::DecodeStep step = {};
  step.rule.decay = 0.98f;
  step.rule.log2_decay = std::log2(0.98f);
  step.rule.fold = cuda::Fold::residual;
  step.rule.alpha = 0.6f;
  step.rule.block = 1;
  step.q = q.data();
  step.out = out.data();
  step.scale = 1.0f / std::sqrt(static_cast<float>(dim));
  step.batch = static_cast<unsigned>(p.sequences);
  step.floats = floats.data();
  const auto each = static_cast<double>(layers);
  const double attention = time_us(repetitions, [&](cuda::Stream stream) {
    for (const Layer<T>& layer : all) {
      step.heads = layer.heads();
      cuda::launch_attend<T, T>(step, plan, stream);
    }
  });
  step.k = step.v = kv.data();
  step.logits = logits.data(), step.least_value = least_value.data(), step.least_slot = least_slot.data();
  const double whole = time_us(repetitions, [&](cuda::Stream stream) {
    for (const Layer<T>& layer : all) {
      step.heads = layer.heads();
      cuda::launch_decode_step<T, T>(step, plan, stream);
    }
  });
  return {attention / each, whole / each, bytes};
}

}  // namespace

std::string why_no_device() { return cuda::why_no_device(); }

DeviceFacts describe_device() {
  const cuda::Limits limits = cuda::limits();
  return {limits.name, std::to_string(limits.major) + "." + std::to_string(limits.minor),
          limits.multiprocessors, limits.l2_bytes, copy_gb_per_s(limits.memory_bytes)};
}

StepTimes measure_step(const StepProblem& problem, std::size_t repetitions) {
  if (problem.type == "q8") return measure_as<q8>(problem, repetitions);
  if (problem.type == "bf16") return measure_as<bf16>(problem, repetitions);
  return measure_as<f16>(problem, repetitions);
}

}  // namespace bench
