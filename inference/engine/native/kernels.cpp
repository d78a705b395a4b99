// The decode engine's kernels: the encoder, the memory, one step of the decoder, one of the search.
//
// A batch is split by requests, a part for each thread. Parts share nothing but what is read, so the results do not
// depend on how many there are.
#include "experts.h"
#include "search.h"
#include "threads.h"

namespace onerec {
namespace {

constexpr long GROUP_ROWS = 256;  // rows that go through a block together: their activations fit the second cache

thread_local Arena arena;

void self_attention(const Model& m, const Kept* wide, long length, Kept* mixed) {
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
long piece(long length, long width) {
  return std::max(packed_elements(width, padded(length)), packed_elements(padded(length), width));
}

void remember(const Model& m, const Rows& states, long length, Element* memory) {
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
void encode(const Model& m, float* x, long length, Element* memory) {
  const long d = m.width;
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
  remember(m, normalised(x, length, d, m.floor, normed, scales), length, memory);
}

void embed(const Model& m, const Step& t, const int32_t* rows, long count, float* x) {
  const long d = m.width;
  for (long token = 0; token < count * t.fed; ++token) {
    const long place = t.start + token % t.fed;
    const long code = t.codes[rows[token / t.fed] * t.fed + token % t.fed];
    const Kept* embedding = m.embeddings + (m.first_rows[place] + code) * d;
    const Kept* position = m.positions + place * d;
    for (long c = 0; c < d; c += LANES)
      Isa::store(x + token * d + c, Isa::add(Keeping::widen(embedding + c), Keeping::widen(position + c)));
  }
}

// The first block's queries, keys and values, which depend on nothing but token and place.
void look_up(const Model& m, const Step& t, const int32_t* rows, long count, Kept* wide) {
  const long size = 3 * m.width;
  for (long token = 0; token < count * t.fed; ++token) {
    const long code = t.codes[rows[token / t.fed] * t.fed + token % t.fed];
    std::memcpy(wide + token * size, m.first_qkv + ((t.start + token % t.fed) * m.codes + code) * size,
                size * sizeof(Kept));
  }
}

// Keys and values of the new tokens to the cache.
void keep(const Model& m, const State& s, const Step& t, const Kept* wide, const int32_t* rows, long count,
          Kept* cache) {
  const long d = m.width;
  for (long token = 0; token < count * t.fed; ++token) {
    const long place = (t.start + token % t.fed) * s.max_rows + rows[token / t.fed];
    std::memcpy(cache + place * 2 * d, wide + token * 3 * d + d, 2 * d * sizeof(Kept));
  }
}

using OverAncestors = void (*)(const Kept*, const Kept*, const int32_t*, const int32_t*, long, long, long, Kept*);

OverAncestors over_ancestors_for(long width) {
  switch (width) {
    case 32: return over_ancestors<32>;
    case 64: return over_ancestors<64>;
    case 96: return over_ancestors<96>;
    default: return over_ancestors<128>;
  }
}

// Attention of fed tokens over their past: of all of them, or of the last one of each row in `tokens`.
void attend_past(const Model& m, const Step& t, const Kept* wide, const Kept* cache, const int32_t* rows,
                 const int32_t* tokens, long count, Kept* mixed) {
  const long d = m.width, all = t.start + t.fed;
  const auto attend = over_ancestors_for(d / m.heads);
  for (long i = 0; i < count; ++i) {
    const long token = tokens[i], after = tokens[std::min(i + 1, count - 1)];
    attend(wide + token * 3 * d, cache, t.ancestors + rows[token / t.fed] * all, t.ancestors + rows[after / t.fed] * all,
           t.start + token % t.fed + 1, d, m.heads, mixed + i * d);
  }
}

// Attention of queries, `each` for every chosen row, over the memory of their request.
void attend_memory(const Model& m, const State& s, long layer, const Chosen& chosen, long each, long first,
                   long requests, const Rows& query, Kept* mixed) {
  const long d = m.width, width = d / m.heads;
  const long space = padded(*std::max_element(s.lengths + first, s.lengths + first + requests));
  float* scores = arena.take<float>(MEMORY_ROWS * space);
  Element* shares = arena.take<Element>(MEMORY_ROWS * space);
  for (long b = first; b < first + requests; ++b) {
    const long from = chosen.count(first, b - first) * each, count = chosen.count(b, 1) * each;
    const long size = piece(s.lengths[b], width);
    const Element* memory = s.memory[b] + layer * 2 * m.heads * size;
    for (long h = 0; h < m.heads; ++h)
      over_memory(query.from(from, h * width), count, memory + h * size, memory + (m.heads + h) * size, s.lengths[b],
                  width, scores, shares, mixed + from * d + h * width, d);
  }
}

// Each row's past and present, for the requests [first, last).
void descend(const State& s, const Step& t, long first, long last) {
  const long all = t.start + t.fed;
  for (long row = first * t.rows_each; row < last * t.rows_each; ++row) {
    const int32_t* from = t.past + (t.parents == nullptr ? row : t.parents[row]) * t.start;
    int32_t* to = std::copy(from, from + t.start, t.ancestors + row * all);
    for (long place = t.start; place < all; ++place) *to++ = static_cast<int32_t>(place * s.max_rows + row);
  }
}

// The last fed token of each asked row, among those of the live rows.
void last_tokens(const Step& t, long first, long requests, int32_t* tokens) {
  const int32_t* live = t.live.rows + t.live.ends[first];
  const int32_t* asked = t.asked.rows + t.asked.ends[first];
  for (long i = 0, at = 0; i < t.asked.count(first, requests); ++i) {
    while (live[at] != asked[i]) ++at;
    tokens[i] = static_cast<int32_t>(at * t.fed + t.fed - 1);
  }
}

// One step for the requests [first, first + requests).
void advance(const Model& m, const State& s, const Step& t, long first, long requests) {
  const long d = m.width, live = t.live.count(first, requests);
  const int32_t* rows = t.live.rows + t.live.ends[first];
  long count = live * t.fed;  // tokens that go on
  float* x = arena.take<float>(count * d);
  Element* normed = arena.take<Element>(count * d);
  float* scales = arena.take<float>(count);
  Kept* wide = arena.take<Kept>(count * 3 * d);
  Kept* mixed = arena.take<Kept>(count * d);
  int32_t* tokens = arena.take<int32_t>(count);
  for (long i = 0; i < count; ++i) tokens[i] = static_cast<int32_t>(i);
  embed(m, t, rows, live, x);
  for (long layer = 0; layer < m.decoder_blocks; ++layer) {
    const size_t mark = arena.mark();
    const Block& block = m.decoder[layer];
    Kept* cache = s.cache + layer * s.max_tokens * s.max_rows * 2 * d;
    if (layer == 0 && m.first_qkv != nullptr)
      look_up(m, t, rows, live, wide);
    else
      product(normalised(x, count, d, m.floor, normed, scales), count, block.qkv, d, 3 * d, Store{wide, 3 * d});
    keep(m, s, t, wide, rows, live, cache);
    const bool last = layer + 1 == m.decoder_blocks;
    if (last) {  // of other tokens nothing but these keys and values is needed
      count = t.asked.count(first, requests);
      last_tokens(t, first, requests, tokens);
      for (long i = 0; i < count; ++i) std::memmove(x + i * d, x + tokens[i] * d, d * sizeof(float));
    }
    attend_past(m, t, wide, cache, rows, tokens, count, mixed);
    product(multipliable(mixed, d, count, d, arena), count, block.out, d, d, Add{x, d});
    Kept* query = wide;  // no longer needed
    product(normalised(x, count, d, m.floor, normed, scales), count, block.cross_q, d, d, Store{query, d});
    attend_memory(m, s, layer, last ? t.asked : t.live, last ? 1 : t.fed, first, requests,
                  multipliable(query, d, count, d, arena), mixed);
    product(multipliable(mixed, d, count, d, arena), count, block.cross_out, d, d, Add{x, d});
    add_ffn(m, block, normalised(x, count, d, m.floor, normed, scales), count, x, arena);
    arena.back_to(mark);
  }
  product(normalised(x, count, d, m.floor, normed, scales), count, t.head, d, t.head_columns,
          StoreRows{t.logits, t.head_columns, t.asked.rows + t.asked.ends[first]});
}

}  // namespace
}  // namespace onerec

using namespace onerec;

extern "C" {

// The widths that the caller has to know: columns of a vector, bytes of an element.
int64_t onerec_lanes() { return LANES; }
int64_t onerec_element_bytes() { return sizeof(Element); }
int64_t onerec_piece(int64_t length, int64_t width) { return piece(length, width); }
int64_t onerec_packed_elements(int64_t k, int64_t n) { return packed_elements(k, padded(n)); }

// Weights [k, n] float32 -> packed [k, padded n] elements. k must be even.
void onerec_pack(const float* weights, int64_t k, int64_t n, Element* to) {
  pack(k, padded(n), [=](long row, long column) {
    return Keeping::narrow(column < n ? weights[row * n + column] : 0.0f);
  }, to);
}

// Kept rows [m, k] times packed [k, n]: float32 [m, padded n].
void onerec_product(const Kept* rows, int64_t m, const Element* packed, int64_t k, int64_t n, float* to) {
  [[maybe_unused]] const Tiles tiles;
  arena.back_to(0);
  product(multipliable(rows, k, m, k, arena), m, packed, k, padded(n), StoreFloat{to, padded(n)});
}

// Histories x [B, positions, d] float32 (used up) of B requests to the memory of `state`.
void onerec_encode(const Model* model, const State* state, float* x, int64_t positions, int64_t requests,
                   int64_t threads) {
  in_parts(requests, std::min(requests, threads), [&](int64_t first, int64_t last) {
    [[maybe_unused]] const Tiles tiles;
    for (long request = first; request < last; ++request) {
      arena.back_to(0);
      encode(*model, x + request * positions * model->width, state->lengths[request], state->memory[request]);
    }
  });
}

// One step of B requests; their logits are written.
void onerec_advance(const Model* model, const State* state, const Step* step, int64_t requests, int64_t threads) {
  in_parts(requests, std::min(requests, threads), [&](int64_t first, int64_t last) {
    [[maybe_unused]] const Tiles tiles;
    descend(*state, *step, first, last);
    for (long request = first, group; request < last; request += group) {
      for (group = 1; request + group < last; ++group)
        if (step->live.count(request, group + 1) * step->fed > GROUP_ROWS) break;
      arena.back_to(0);
      advance(*model, *state, *step, request, group);
    }
  });
}

// One step of the search for B requests. `widest` children has a node of the level at most.
void onerec_search(const Tree* tree, const Search* step, int64_t widest, int64_t requests, int64_t threads) {
  in_parts(requests, std::min(requests, threads), [&](int64_t first, int64_t last) {
    for (long request = first; request < last; ++request) {
      arena.back_to(0);
      search(*tree, *step, request, widest, arena);
    }
  });
}

}  // extern "C"
