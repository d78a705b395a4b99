// What the callers hand over: plain structs of pointers, laid out like the ctypes structures in binding.py.
#pragma once
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include "isa.h"

namespace onerec {

struct Block {  // packed weights, gains and scales folded in; null where the block has no such part
  const Element *qkv, *out;
  const Element *cross_q, *cross_kv, *cross_out;
  const Element *router, *w_in, *w_out;  // [d, experts], experts x [d, 2 * hidden] gated, experts x [hidden, d]
  const float* expert_bias;
  int64_t hidden;
};

struct Model {
  int64_t width, heads, experts, active, codes;
  int64_t encoder_blocks, decoder_blocks;
  float floor;  // of the norms
  const Block *encoder, *decoder;
  const Kept* embeddings;      // [1 + L * K, d]
  const Kept* positions;       // [m * (L + 1), d]
  const int64_t* first_rows;   // [m * (L + 1)]: where the tokens of a place begin in `embeddings`
  const Kept* first_qkv;       // [m * (L + 1) * codes, 3 * d]: the first block's of every token; null: not made
};

struct State {  // of a batch of B requests
  int64_t max_rows;        // rows of a place in the cache
  int64_t max_tokens;
  const int32_t* lengths;  // [B] positions of memory
  Recalled* const* memory;  // [B]: of a request [blocks, keys and values, heads, piece(length)], packed
  Kept* cache;             // [blocks, max_tokens * max_rows, 2 * d]: keys and values of what was generated
};

// Rows of a batch, those of a request together: request b has rows[ends[b]] to rows[ends[b + 1]], in order.
struct Chosen {
  const int32_t* rows;
  const int64_t* ends;

  long count(long first, long requests) const { return ends[first + requests] - ends[first]; }
};

struct Step {  // `fed` tokens to each of the live rows; logits of some of them
  int64_t fed, start;
  Chosen live, asked;       // asked are live; of the others only keys and values are needed
  const int64_t* codes;     // [rows, fed]
  int64_t rows_each;        // of a request
  const int32_t* past;      // [rows of the step before, start]: cache rows of each row's past
  const int64_t* parents;   // [rows]: which of these rows each continues; null: the same
  int32_t* ancestors;       // [rows, start + fed]: cache rows of each row's past and present, made by the step
  const Element* head;      // packed [d, codes of the level]
  int64_t head_columns;     // whole panels
  float* logits;            // [rows, head_columns]
};

// Memory of one thread that a call takes in pieces and the next call takes again.
class Arena {
 public:
  template <class T>
  T* take(long count) {
    const size_t bytes = (static_cast<size_t>(count) * sizeof(T) + 63) / 64 * 64;
    if (used_ == blocks_.size()) blocks_.push_back({nullptr, 0});
    Piece& piece = blocks_[used_++];
    if (piece.bytes < bytes) {
      std::free(piece.data);
      piece.data = std::aligned_alloc(64, bytes);
      if (piece.data == nullptr) throw std::bad_alloc();
      piece.bytes = bytes;
    }
    return static_cast<T*>(piece.data);
  }
  size_t mark() const { return used_; }
  void back_to(size_t mark) { used_ = mark; }
  ~Arena() {
    for (auto& piece : blocks_) std::free(piece.data);
  }

 private:
  struct Piece {
    void* data;
    size_t bytes;
  };
  std::vector<Piece> blocks_;
  size_t used_ = 0;
};

namespace {
thread_local Arena arena;
}

// What the thread's arena gives out while this lives may be taken again after it.
class Scope {
 public:
  Scope() : mark_(arena.mark()) {}
  ~Scope() { arena.back_to(mark_); }
  Scope(const Scope&) = delete;

 private:
  size_t mark_;
};

}  // namespace onerec
