// How the entries of a kv head lie in device memory, and what a decode step knows of them. Plain data: the
// host fills it before a kernel needs it, kernels read and change it.
//
// Keys and values lie row by row, [entry][channel], each row padded with zeros to whole chunks of 16 bytes.
// The CPU's tiles of 16 entries save horizontal sums; on a device the sums cost little (a lane sums a whole
// row, or a part of one, from shared memory) and rows cost less: an entry is written, moved and folded by one
// warp in whole chunks, which is what eviction does in every step, and both products read the same way:
// neighbouring lanes neighbouring chunks.
#pragma once

#include <cstdint>

#include "zeromerge/core/element.hpp"

#if defined(__CUDACC__)
#define ZEROMERGE_LAYOUT __host__ __device__ constexpr
#else
#define ZEROMERGE_LAYOUT constexpr
#endif

namespace zeromerge::cuda {

inline constexpr std::uint32_t kKeepsAll = 0xffffffffu;  // a capacity: nobody ever leaves
inline constexpr std::uint32_t kNoSlot = 0xffffffffu;
inline constexpr std::uint32_t kChunkBytes = 16;    // of a row: what one load moves
inline constexpr std::uint32_t kMostHeadDim = 256;  // a warp holds a row, 8 channels a lane
inline constexpr float kMaskedLogit = -3.0e38f;     // its exponential is exactly 0
inline constexpr float kLog2E = 1.44269504089f;     // logits are in units of log 2
inline constexpr float kLn2 = 0.69314718056f;

// What types entries can have on a device. q8: x ~ scale * q, signed bytes q in [-127, 127].
template <class T>
inline constexpr std::uint32_t stored_bytes = 0;
template <>
inline constexpr std::uint32_t stored_bytes<f16> = 2;
template <>
inline constexpr std::uint32_t stored_bytes<bf16> = 2;
template <>
inline constexpr std::uint32_t stored_bytes<q8> = 1;
template <class T>
inline constexpr bool has_scale = false;
template <>
inline constexpr bool has_scale<q8> = true;

template <class T>
ZEROMERGE_LAYOUT std::uint32_t row_chunks(std::uint32_t head_dim) {
  return (head_dim * stored_bytes<T> + kChunkBytes - 1) / kChunkBytes;
}
template <class T>
ZEROMERGE_LAYOUT std::uint32_t row_bytes(std::uint32_t head_dim) {
  return row_chunks<T>(head_dim) * kChunkBytes;
}

// Where the entries of one head lie; constant from the end of a prompt to the next one. Kernels write no slot
// at or above `room`, and a decode step needs room for one entry more than the head holds.
struct HeadRows {
  void* keys;               // [room][row_bytes]
  void* values;             // [room][row_bytes]
  float* key_scale;         // [room] q8, else null
  float* value_scale;       // [room] q8, else null
  float* score;             // [room], or null: nobody asks for it
  float* mass;              // [room], or null: every entry is a plain token
  float* bias;              // [room], or null with mass
  std::uint32_t* position;  // [room]
  std::uint32_t room;
};

// What a head holds and how it is divided: zeromerge::HeadState and Division. Slots in order: sinks |
// residual | rated | context | recent, which is a ring once the head is full. It lives in device memory and
// the step itself changes it, so a captured step replays without the host.
struct HeadState {
  std::uint32_t size;      // entries
  std::uint32_t tokens;    // seen by the sequence
  std::uint32_t capacity;  // entries a step leaves at most, or kKeepsAll
  std::uint32_t sinks;
  std::uint32_t residual;  // places for merged entries
  std::uint32_t recent;
  std::uint32_t residuals;  // merged entries that exist
  std::uint32_t rated;      // behind these: do not compete, the last of them being the next to
  std::uint32_t ring_next;  // the ring's oldest place
  std::uint32_t ring;       // 1: it has turned
  std::uint32_t held_sum;   // of `rated` over the tokens since one of them was let go
};

// What an entry is worth.
enum class Importance : std::uint32_t {
  score,       // DecayedAttention
  mean_score,  // the same, divided by what its age allows
  recency,     // Recency: the newest
};
enum class Fold : std::uint32_t { drop, residual };
enum class Match : std::uint32_t { dot, l2 };

// What a policy does in a decode step; the same for all heads of a cache.
struct StepRule {
  Importance importance;
  Fold fold;
  Match match;                 // with several residual entries: who takes the leaver
  float decay;                 // of every score, once a step
  float log2_decay;            // log2(decay), 0 for decay = 1
  float alpha;                 // the bias of a merged entry is alpha * ln(mass)
  std::uint32_t block;         // Areas::block
  std::uint32_t as_reference;  // Areas::as_reference
  std::uint32_t sum_on_merge;  // the score of a merged entry: the sum, else the larger one
  std::uint32_t hold;          // rated entries times tokens for which one begins to compete; 0: none does
  std::uint32_t rates_keys;    // 1: who leaves goes by KeyDiff, which a step's launches write over the scores
};

// One layer's heads in a batch of sequences. Row r of a batch is sequence sequences[r], or r where that is
// null.
struct BatchHeads {
  const HeadRows* rows;            // [sequences][kv_heads]
  HeadState* states;               // [sequences][kv_heads]
  const std::uint32_t* sequences;  // [rows of the batch] or null
  std::uint32_t kv_heads;
  std::uint32_t group;  // query heads of a kv head
  std::uint32_t head_dim;
};

// The parts of a decode step that other kernels combine; scratch that the layers of a cache share.
struct Partials {
  float* out;      // [rows][kv_heads][splits][group][head_dim], not yet divided by the sum
  float* maximum;  // [rows][kv_heads][splits][group] in units of log 2
  float* sum;      // [rows][kv_heads][splits][group]
  float* logits;  // [rows][kv_heads][group][stride] in units of log 2, or null: nobody asks for probabilities
  std::uint32_t splits;
  std::uint32_t segment;  // entries of a split
  std::uint32_t stride;   // at least the entries of the largest head
};

}  // namespace zeromerge::cuda

#undef ZEROMERGE_LAYOUT
