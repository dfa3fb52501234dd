#include "engine/depth.hpp"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <stdexcept>
#include <vector>

#include "generate/error.hpp"

namespace bench {
namespace {

using generate::Job;
using generate::Model;
using generate::Session;
using State = std::vector<std::uint8_t>;

std::size_t copied_tokens(const Depth& depth) {
  return depth.copied && depth.tokens > kFed ? depth.tokens - kFed : 0;
}

State compute_block(const Model& model, Job job) {
  job.ctx = static_cast<std::int32_t>(kBlock);
  job.sequences = 1;
  Session session(model, job);
  session.feed(std::span(job.prompt).first(kBlock), /*want_logits=*/false);
  State state(llama_state_seq_get_size(session.context(), 0));
  state.resize(llama_state_seq_get_data(session.context(), state.data(), state.size(), 0));
  return state;
}

State load_block(const Model& model, const Job& job, const std::string& path) {
  if (!std::filesystem::exists(path)) {
    const State state = compute_block(model, job);
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(state.data()), static_cast<std::streamsize>(state.size()));
    if (!file.flush()) throw std::runtime_error(path + " cannot be written; is there space left?");
    return state;
  }
  std::ifstream file(path, std::ios::binary);
  return State(std::istreambuf_iterator<char>(file), {});
}

// Restored as sequence 1, moved to its place, and handed to sequence 0. llama.cpp turns the keys to their new
// positions before its next graph.
void copy_block(Session& session, const State& block, std::size_t begin, std::size_t count) {
  llama_context* context = session.context();
  llama_memory_t memory = llama_get_memory(context);
  if (llama_state_seq_set_data(context, block.data(), block.size(), 1) == 0) {
    throw generate::UsageError(
        "--depth copied: llama.cpp cannot restore the state of this model behind itself; "
        "give --depth computed");
  }
  const auto first = static_cast<llama_pos>(begin);
  const auto length = static_cast<llama_pos>(count);
  if (count < kBlock) llama_memory_seq_rm(memory, 1, length, -1);
  llama_memory_seq_add(memory, 1, 0, length, first);
  llama_memory_seq_cp(memory, 1, 0, -1, -1);
  llama_memory_seq_rm(memory, 1, -1, -1);
}

void copy_past(Session& session, const Model& model, const Job& job, const Depth& depth) {
  const std::size_t count = copied_tokens(depth);
  if (count == 0) return;
  if (!llama_memory_can_shift(llama_get_memory(session.context()))) {
    throw generate::UsageError(
        "--depth copied: llama.cpp cannot move this model's cache; give --depth computed");
  }
  const State block = load_block(model, job, depth.block_file);
  for (std::size_t begin = 0; begin < count; begin += kBlock)
    copy_block(session, block, begin, std::min(kBlock, count - begin));
  session.set_position(static_cast<llama_pos>(count));
}

}  // namespace

std::size_t cells_needed(const Depth& depth) {
  const std::size_t copied = (copied_tokens(depth) + kBlock - 1) / kBlock * kBlock;
  return std::max(depth.tokens, copied);
}

void fill(Session& session, const Model& model, const Job& job, const Depth& depth) {
  copy_past(session, model, job, depth);
  const std::span<const llama_token> prompt(job.prompt);
  for (std::size_t begin = copied_tokens(depth); begin < depth.tokens;) {
    const std::size_t count = std::min(kBlock, depth.tokens - begin);
    session.feed(prompt.subspan(begin, count), /*want_logits=*/begin + count == depth.tokens);
    begin += count;
  }
}

}  // namespace bench
