// The kernels of a cache with these stored types, as functions, so that what launches them knows no types.
#pragma once

#include "zeromerge/cuda/decode_step.hpp"
#include "zeromerge/kernels/cuda/columns.hpp"
#include "zeromerge/kernels/cuda/compact.hpp"
#include "zeromerge/kernels/cuda/pool.hpp"
#include "zeromerge/kernels/cuda/prompt_attention.hpp"
#include "zeromerge/kernels/cuda/select.hpp"

namespace zeromerge::cuda {

// Bounds that a grid needs.
struct PromptExtent {
  unsigned rows;     // stacked rows of a kv head
  unsigned entries;  // of the largest head
};

struct Launches {
  void (*append)(const PromptHeads& heads, const PromptTokens& tokens, Stream stream);
  void (*attend)(const PromptAttentionArguments& a, PromptExtent extent, Stream stream);
  void (*columns)(const ColumnArguments& a, PromptExtent extent, Stream stream);
  void (*rate_keys)(const KeyRatingArguments& a, Stream stream);
  void (*gather)(const CompactArguments& a, unsigned entries, Stream stream);
  void (*fold)(const CompactArguments& a, unsigned groups, Stream stream);
  void (*decode)(const DecodeStep& step, const DecodePlan& plan, Stream stream);
  void (*look)(const DecodeStep& step, const DecodePlan& plan, Stream stream);  // attends and changes nothing
};

namespace detail {

constexpr unsigned blocks_of(std::size_t n, unsigned each) {
  return static_cast<unsigned>((n + each - 1) / each);
}

template <class K, class V>
struct PromptLaunches {
  static void append(const PromptHeads& heads, const PromptTokens& tokens, Stream stream) {
    launch(append_prompt<K, V>, {tokens.tokens, heads.kv_heads}, kAppendThreads, 0, stream, heads, tokens);
    launch(count_prompt<kWarp>, {1}, kWarp, 0, stream, heads, tokens.tokens);
  }
  template <unsigned kDim>
  static void attend_as(const PromptAttentionArguments& a, PromptExtent extent, Stream stream) {
    launch(prompt_attention<K, V, kDim>, {blocks_of(extent.rows, kPromptRows), a.heads.kv_heads},
           kPromptThreads, kPromptAttentionBytes<kDim>, stream, a);
  }
  static void attend(const PromptAttentionArguments& a, PromptExtent extent, Stream stream) {
    if (a.heads.head_dim <= 64) return attend_as<64>(a, extent, stream);
    if (a.heads.head_dim <= 128) return attend_as<128>(a, extent, stream);
    attend_as<256>(a, extent, stream);
  }
  template <unsigned kDim>
  static void columns_as(const ColumnArguments& a, PromptExtent extent, Stream stream) {
    launch(column_statistics<K, kDim>, {blocks_of(extent.entries, kPromptEntries), a.heads.kv_heads},
           kPromptThreads, kColumnBytes<kDim>, stream, a);
  }
  static void columns(const ColumnArguments& a, PromptExtent extent, Stream stream) {
    if (a.heads.head_dim <= 64) return columns_as<64>(a, extent, stream);
    if (a.heads.head_dim <= 128) return columns_as<128>(a, extent, stream);
    columns_as<256>(a, extent, stream);
  }
  static void gather(const CompactArguments& a, unsigned entries, Stream stream) {
    if (entries != 0)
      launch(gather_slots<K, V>, {blocks_of(entries, kCompactWarps), a.count}, kCompactThreads, 0, stream, a);
  }
  static void fold(const CompactArguments& a, unsigned groups, Stream stream) {
    if (groups != 0)
      launch(fold_leavers<K, V>, {groups, a.count}, kCompactThreads, kFoldSharedBytes, stream, a);
  }
};

}  // namespace detail

template <class K, class V>
Launches launches_of() {
  using Prompt = detail::PromptLaunches<K, V>;
  return {Prompt::append, Prompt::attend, Prompt::columns,          launch_rate_keys<K>,
          Prompt::gather, Prompt::fold,   launch_decode_step<K, V>, launch_attend<K, V>};
}

inline void launch_select(const SelectArguments& a, Stream stream) {
  launch(select_slots<kSelectThreads>, {a.count}, kSelectThreads, kSelectSharedBytes, stream, a);
}

// Types chosen at run time: keys and values of one type, which keeps the number of kernels within bounds. A
// template so that all of them are compiled only where they are asked for.
template <class = void>
Launches launches_of(StorageType keys, StorageType values) {
  if (keys != values)
    fail("cuda: chosen at run time, keys and values have one type, asked for ", storage_name(keys), " and ",
         storage_name(values), "; use storage=, or name the types in the program");
  if (keys == StorageType::f16) return launches_of<f16, f16>();
  if (keys == StorageType::bf16) return launches_of<bf16, bf16>();
  return launches_of<q8, q8>();
}

}  // namespace zeromerge::cuda
