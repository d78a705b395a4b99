// The encoder, and what the decoder attends of it: keys and values of each block, packed.
//
// Threads share a request's rows where rows do not depend on each other, and elsewhere its heads and blocks.
#pragma once
#include "experts.h"
#include "threads.h"

namespace onerec {

// How many threads share so many rows. Each reads all the weights, so it should have a product's tile of them at least.
inline long sharers(long rows, long threads) { return std::min((rows + MEMORY_ROWS - 1) / MEMORY_ROWS, threads); }

// As `in_parts`, where each part may multiply and take of its thread's arena.
template <class Work>
void shared(long count, long parts, const Work& work) {
  in_parts(count, parts, [&](int64_t first, int64_t last) {
    [[maybe_unused]] const Tiles tiles;
    const Scope scope;
    work(first, last);
  });
}

// Attention of all rows by the heads [first, last).
inline void self_attention(const Model& m, const Kept* wide, const Queries& query, long length, long first, long last,
                           Kept* mixed) {
  const long d = m.width, width = d / m.heads, space = padded(length);
  Recalled* keys = arena.take<Recalled>(packed_elements<Recalling>(width, space));
  Recalled* values = arena.take<Recalled>(packed_elements<Recalling>(space, width));
  float* scores = arena.take<float>(MEMORY_ROWS * space);
  Recalled* shares = arena.take<Recalled>(MEMORY_ROWS * space);
  for (long h = first; h < last; ++h) {
    pack_keys(wide + d + h * width, 3 * d, length, space, width, keys);
    pack_values(wide + 2 * d + h * width, 3 * d, length, space, width, values);
    over_memory(query.from(0, h * width), length, keys, values, length, width, scores, shares, mixed + h * width, d);
  }
}

// Elements of one head's keys, or values, of a memory.
inline long piece(long length, long width) {
  const long space = padded(length);
  return std::max(packed_elements<Recalling>(width, space), packed_elements<Recalling>(space, width));
}

// What the decoder's blocks [first, last) attend.
inline void remember(const Model& m, const Rows& states, long length, long first, long last, Recalled* memory) {
  const long d = m.width, width = d / m.heads, space = padded(length), each = piece(length, width);
  Kept* wide = arena.take<Kept>(length * 2 * d);
  for (long layer = first; layer < last; ++layer) {
    Recalled *keys = memory + layer * 2 * m.heads * each, *values = keys + m.heads * each;
    product(states, length, m.decoder[layer].cross_kv, d, 2 * d, Store{wide, 2 * d});
    for (long h = 0; h < m.heads; ++h) {
      pack_keys(wide + h * width, 2 * d, length, space, width, keys + h * each);
      pack_values(wide + d + h * width, 2 * d, length, space, width, values + h * each);
    }
  }
}

// The rows' own part of a block: what they attended, and the feed-forward network.
inline void add_attended(const Model& m, const Block& block, const Kept* mixed, long rows, float* x) {
  const long d = m.width;
  product(multipliable(mixed, d, rows, d, arena), rows, block.out, d, d, Add{x, d});
  Element* normed = arena.take<Element>(rows * d);
  add_ffn(m, block, normalised(x, rows, d, m.floor, normed, arena.take<float>(rows)), rows, x, arena);
}

// x [length, d]: one request's history, without padding.
inline void encode(const Model& m, float* x, long length, Recalled* memory, long threads) {
  const long d = m.width, parts = sharers(length, threads);
  Element* normed = arena.take<Element>(length * d);
  float* scales = arena.take<float>(length);
  Kept* wide = arena.take<Kept>(length * 3 * d);
  Kept* mixed = arena.take<Kept>(length * d);
  const auto normalise = [&](long from, long to) {
    return normalised(x + from * d, to - from, d, m.floor, normed + from * d, scales + from);
  };
  for (long layer = 0; layer < m.encoder_blocks; ++layer) {
    const Scope scope;
    const Block& block = m.encoder[layer];
    shared(length, parts, [&](long from, long to) {
      product(normalise(from, to), to - from, block.qkv, d, 3 * d, Store{wide + from * 3 * d, 3 * d});
    });
    const Queries query = multipliable<Recalling>(wide, 3 * d, length, d, arena);
    shared(m.heads, std::min(m.heads, parts),
           [&](long first, long last) { self_attention(m, wide, query, length, first, last, mixed); });
    shared(length, parts,
           [&](long from, long to) { add_attended(m, block, mixed + from * d, to - from, x + from * d); });
  }
  const Rows states = normalise(0, length);
  shared(m.decoder_blocks, std::min(m.decoder_blocks, parts),
         [&](long first, long last) { remember(m, states, length, first, last, memory); });
}

}  // namespace onerec
