// The decode engine's kernels: the encoder, the memory, one step of the decoder.
//
// No call depends on another thread: a batch is split by requests and each thread takes its own (see decoder.py).
#include "experts.h"

namespace onerec {
namespace {

constexpr long GROUP_ROWS = 256;  // rows that go through a block together: their activations fit the second cache

thread_local Arena arena;

void self_attention(const Model& m, const Kept* wide, long length, Kept* mixed) {
  const long d = m.width, width = d / m.heads, space = padded(length);
  Element* keys = arena.take<Element>(packed_elements(width, space));
  Element* values = arena.take<Element>(packed_elements(space, width));
  float* scores = arena.take<float>(TILE_ROWS * space);
  Element* shares = arena.take<Element>(TILE_ROWS * space);
  const Rows query = multipliable(wide, 3 * d, length, d, arena);
  for (long h = 0; h < m.heads; ++h) {
    pack_keys(wide + d + h * width, 3 * d, length, space, width, keys);
    pack_values(wide + 2 * d + h * width, 3 * d, length, space, width, values);
    over_memory(query.from(0, h * width), length, keys, values, length, width, scores, shares, mixed + h * width, d);
  }
}

void remember(const Model& m, const State& s, const Rows& states, long request, long length) {
  const long d = m.width, width = d / m.heads, space = padded(length);
  Kept* wide = arena.take<Kept>(length * 2 * d);
  for (long layer = 0; layer < m.decoder_blocks; ++layer) {
    product(states, length, m.decoder[layer].cross_kv, d, 2 * d, Store{wide, 2 * d});
    for (long h = 0; h < m.heads; ++h) {
      const long place = ((layer * s.requests + request) * m.heads + h) * s.piece;
      pack_keys(wide + h * width, 2 * d, length, space, width, s.keys + place);
      pack_values(wide + d + h * width, 2 * d, length, space, width, s.values + place);
    }
  }
}

// x [length, d]: one request's history, without padding.
void encode(const Model& m, const State& s, float* x, long request) {
  const long d = m.width, length = s.lengths[request];
  Element* normed = arena.take<Element>(length * d);
  float* scales = arena.take<float>(length);
  Kept* wide = arena.take<Kept>(length * 3 * d);
  Kept* mixed = arena.take<Kept>(length * d);
  for (long layer = 0; layer < m.encoder_blocks; ++layer) {
    const size_t mark = arena.mark();
    const Block& block = m.encoder[layer];
    product(normalised(x, length, d, m.floor, normed, scales), length, block.qkv, d, 3 * d, Store{wide, 3 * d});
    self_attention(m, wide, length, mixed);
    product(multipliable(mixed, d, length, d, arena), length, block.out, d, d, Add{x, d});
    add_ffn(m, block, normalised(x, length, d, m.floor, normed, scales), length, x, arena);
    arena.back_to(mark);
  }
  remember(m, s, normalised(x, length, d, m.floor, normed, scales), request, length);
}

void embed(const Model& m, const Step& t, long first_row, long rows, float* x) {
  const long d = m.width;
  for (long token = 0; token < rows * t.fed; ++token) {
    const long place = t.start + token % t.fed;
    const long code = t.codes[first_row * t.fed + token];
    const Kept* embedding = m.embeddings + (m.first_rows[place] + code) * d;
    const Kept* position = m.positions + place * d;
    for (long c = 0; c < d; c += LANES)
      Isa::store(x + token * d + c, Isa::add(Keeping::widen(embedding + c), Keeping::widen(position + c)));
  }
}

// Keys and values of the new tokens to the cache.
void keep(const Model& m, const State& s, const Step& t, const Kept* wide, long first_row, long rows, Kept* cache) {
  const long d = m.width;
  for (long row = 0; row < rows; ++row)
    for (long p = 0; p < t.fed; ++p) {
      const long place = (t.start + p) * s.max_rows + first_row + row;
      std::memcpy(cache + place * 2 * d, wide + (row * t.fed + p) * 3 * d + d, 2 * d * sizeof(Kept));
    }
}

using OverAncestors = void (*)(const Kept*, const Kept*, const int32_t*, long, long, long, Kept*);

OverAncestors over_ancestors_for(long width) {
  switch (width) {
    case 32: return over_ancestors<32>;
    case 64: return over_ancestors<64>;
    case 96: return over_ancestors<96>;
    default: return over_ancestors<128>;
  }
}

// Attention of the last `asked` of the fed tokens over their past; `mixed` is [rows * asked, d].
void attend_past(const Model& m, const Step& t, const Kept* wide, const Kept* cache, long first_row, long rows,
                 long asked, Kept* mixed) {
  const long d = m.width, tokens = t.start + t.fed;
  const auto attend = over_ancestors_for(d / m.heads);
  for (long row = 0; row < rows; ++row)
    for (long q = 0; q < asked; ++q) {
      const long p = t.fed - asked + q;
      attend(wide + (row * t.fed + p) * 3 * d, cache, t.ancestors + (first_row + row) * tokens, t.start + p + 1, d,
             m.heads, mixed + (row * asked + q) * d);
    }
}

void attend_memory(const Model& m, const State& s, long layer, long first_request, long requests, long rows_each,
                   const Rows& query, Kept* mixed) {
  const long d = m.width, width = d / m.heads;
  const long space = padded(*std::max_element(s.lengths + first_request, s.lengths + first_request + requests));
  float* scores = arena.take<float>(TILE_ROWS * space);
  Element* shares = arena.take<Element>(TILE_ROWS * space);
  for (long b = 0; b < requests; ++b)
    for (long h = 0; h < m.heads; ++h) {
      const long request = first_request + b, place = ((layer * s.requests + request) * m.heads + h) * s.piece;
      over_memory(query.from(b * rows_each, h * width), rows_each, s.keys + place, s.values + place, s.lengths[request],
                  width, scores, shares, mixed + b * rows_each * d + h * width, d);
    }
}

// One step for the requests [first, first + requests).
void advance(const Model& m, const State& s, const Step& t, long first, long requests) {
  const long d = m.width, first_row = first * t.beams, rows = requests * t.beams;
  long asked = t.fed, tokens = rows * t.fed;
  float* x = arena.take<float>(tokens * d);
  Element* normed = arena.take<Element>(tokens * d);
  float* scales = arena.take<float>(tokens);
  Kept* wide = arena.take<Kept>(tokens * 3 * d);
  Kept* mixed = arena.take<Kept>(tokens * d);
  embed(m, t, first_row, rows, x);
  for (long layer = 0; layer < m.decoder_blocks; ++layer) {
    const size_t mark = arena.mark();
    const Block& block = m.decoder[layer];
    Kept* cache = s.cache + layer * s.max_tokens * s.max_rows * 2 * d;
    product(normalised(x, tokens, d, m.floor, normed, scales), tokens, block.qkv, d, 3 * d, Store{wide, 3 * d});
    keep(m, s, t, wide, first_row, rows, cache);
    if (layer + 1 == m.decoder_blocks && t.fed > 1) {  // of earlier tokens only the keys and values were needed
      for (long row = 0; row < rows; ++row)
        std::memmove(x + row * d, x + (row * t.fed + t.fed - 1) * d, d * sizeof(float));
      asked = 1, tokens = rows;
    }
    attend_past(m, t, wide, cache, first_row, rows, asked, mixed);
    product(multipliable(mixed, d, tokens, d, arena), tokens, block.out, d, d, Add{x, d});
    Kept* query = wide;  // no longer needed
    product(normalised(x, tokens, d, m.floor, normed, scales), tokens, block.cross_q, d, d, Store{query, d});
    attend_memory(m, s, layer, first, requests, t.beams * asked, multipliable(query, d, tokens, d, arena), mixed);
    product(multipliable(mixed, d, tokens, d, arena), tokens, block.cross_out, d, d, Add{x, d});
    add_ffn(m, block, normalised(x, tokens, d, m.floor, normed, scales), tokens, x, arena);
    arena.back_to(mark);
  }
  product(normalised(x, tokens, d, m.floor, normed, scales), rows, t.head, d, t.head_columns,
          StoreFloat{t.logits + first_row * t.head_columns, t.head_columns});
}

}  // namespace
}  // namespace onerec

using namespace onerec;

extern "C" {

// The widths that the caller has to know: columns of a vector, bytes of an element.
int64_t onerec_lanes() { return LANES; }
int64_t onerec_element_bytes() { return sizeof(Element); }
int64_t onerec_packed_elements(int64_t k, int64_t n) { return packed_elements(k, padded(n)); }

// Weights [k, n] float32 -> packed [k, padded n] elements. k must be even.
void onerec_pack(const float* weights, int64_t k, int64_t n, Element* to) {
  pack(k, padded(n), [=](long row, long column) {
    return Keeping::narrow(column < n ? weights[row * n + column] : 0.0f);
  }, to);
}

// Kept rows [m, k] times packed [k, n]: float32 [m, padded n].
void onerec_product(const Kept* rows, int64_t m, const Element* packed, int64_t k, int64_t n, float* to) {
  arena.back_to(0);
  product(multipliable(rows, k, m, k, arena), m, packed, k, padded(n), StoreFloat{to, padded(n)});
}

// Histories x [B, positions, d] float32 (used up) of requests [first, last) to the memory of `state`.
void onerec_encode(const Model* model, const State* state, float* x, int64_t positions, int64_t first, int64_t last) {
  for (long request = first; request < last; ++request) {
    arena.back_to(0);
    encode(*model, *state, x + request * positions * model->width, request);
  }
}

// One step of requests [first, last); their logits are written.
void onerec_advance(const Model* model, const State* state, const Step* step, int64_t first, int64_t last) {
  const long group = std::max<long>(1, GROUP_ROWS / (step->beams * step->fed));
  for (long request = first; request < last; request += group) {
    arena.back_to(0);
    advance(*model, *state, *step, request, std::min<long>(group, last - request));
  }
}

}  // extern "C"
