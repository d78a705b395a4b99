// The encoder, and what the decoder attends of it: keys and values of each block, packed.
#pragma once
#include "experts.h"

namespace onerec {

inline void self_attention(const Model& m, const Kept* wide, long length, Kept* mixed) {
  const long d = m.width, width = d / m.heads, space = padded(length);
  Element* keys = arena.take<Element>(packed_elements(width, space));
  Element* values = arena.take<Element>(packed_elements(space, width));
  float* scores = arena.take<float>(MEMORY_ROWS * space);
  Element* shares = arena.take<Element>(MEMORY_ROWS * space);
  const Rows query = multipliable(wide, 3 * d, length, d, arena);
  for (long h = 0; h < m.heads; ++h) {
    pack_keys(wide + d + h * width, 3 * d, length, space, width, keys);
    pack_values(wide + 2 * d + h * width, 3 * d, length, space, width, values);
    over_memory(query.from(0, h * width), length, keys, values, length, width, scores, shares, mixed + h * width, d);
  }
}

// Elements of one head's keys, or values, of a memory.
inline long piece(long length, long width) {
  return std::max(packed_elements(width, padded(length)), packed_elements(padded(length), width));
}

inline void remember(const Model& m, const Rows& states, long length, Element* memory) {
  const long d = m.width, width = d / m.heads, space = padded(length), each = piece(length, width);
  Kept* wide = arena.take<Kept>(length * 2 * d);
  for (long layer = 0; layer < m.decoder_blocks; ++layer, memory += 2 * m.heads * each) {
    product(states, length, m.decoder[layer].cross_kv, d, 2 * d, Store{wide, 2 * d});
    for (long h = 0; h < m.heads; ++h) {
      pack_keys(wide + h * width, 2 * d, length, space, width, memory + h * each);
      pack_values(wide + d + h * width, 2 * d, length, space, width, memory + (m.heads + h) * each);
    }
  }
}

// x [length, d]: one request's history, without padding.
inline void encode(const Model& m, float* x, long length, Element* memory) {
  const long d = m.width;
  Element* normed = arena.take<Element>(length * d);
  float* scales = arena.take<float>(length);
  Kept* wide = arena.take<Kept>(length * 3 * d);
  Kept* mixed = arena.take<Kept>(length * d);
  for (long layer = 0; layer < m.encoder_blocks; ++layer) {
    const Scope scope;
    const Block& block = m.encoder[layer];
    product(normalised(x, length, d, m.floor, normed, scales), length, block.qkv, d, 3 * d, Store{wide, 3 * d});
    self_attention(m, wide, length, mixed);
    product(multipliable(mixed, d, length, d, arena), length, block.out, d, d, Add{x, d});
    add_ffn(m, block, normalised(x, length, d, m.floor, normed, scales), length, x, arena);
  }
  remember(m, normalised(x, length, d, m.floor, normed, scales), length, memory);
}

}  // namespace onerec
