// One step of the decoder: tokens go in, logits come out, and their keys and values stay in the cache.
#pragma once
#include "encoder.h"

namespace onerec {

constexpr long GROUP_ROWS = 256;  // rows that go through a block together: their activations fit the second cache

inline void embed(const Model& m, const Step& t, const int32_t* rows, long count, float* x) {
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
inline void look_up(const Model& m, const Step& t, const int32_t* rows, long count, Kept* wide) {
  const long size = 3 * m.width;
  for (long token = 0; token < count * t.fed; ++token) {
    const long code = t.codes[rows[token / t.fed] * t.fed + token % t.fed];
    std::memcpy(wide + token * size, m.first_qkv + ((t.start + token % t.fed) * m.codes + code) * size,
                size * sizeof(Kept));
  }
}

// Keys and values of the new tokens to the cache.
inline void keep(const Model& m, const State& s, const Step& t, const Kept* wide, const int32_t* rows, long count,
                 Kept* cache) {
  const long d = m.width;
  for (long token = 0; token < count * t.fed; ++token) {
    const long place = (t.start + token % t.fed) * s.max_rows + rows[token / t.fed];
    std::memcpy(cache + place * 2 * d, wide + token * 3 * d + d, 2 * d * sizeof(Kept));
  }
}

using OverAncestors = void (*)(const Kept*, const Kept*, const int32_t*, const int32_t*, long, long, long, Kept*);

inline OverAncestors over_ancestors_for(long width) {
  switch (width) {
    case 32: return over_ancestors<32>;
    case 64: return over_ancestors<64>;
    case 96: return over_ancestors<96>;
    default: return over_ancestors<128>;
  }
}

// Attention of fed tokens over their past: of all of them, or of the last one of each row in `tokens`.
inline void attend_past(const Model& m, const Step& t, const Kept* wide, const Kept* cache, const int32_t* rows,
                        const int32_t* tokens, long count, Kept* mixed) {
  const long d = m.width, all = t.start + t.fed;
  const auto attend = over_ancestors_for(d / m.heads);
  for (long i = 0; i < count; ++i) {
    const long token = tokens[i], after = tokens[std::min(i + 1, count - 1)];
    const int32_t *own = t.ancestors + rows[token / t.fed] * all, *next = t.ancestors + rows[after / t.fed] * all;
    attend(wide + token * 3 * d, cache, own, next, t.start + token % t.fed + 1, d, m.heads, mixed + i * d);
  }
}

// Attention of queries, `each` for every chosen row, over the memory of their request.
inline void attend_memory(const Model& m, const State& s, long layer, const Chosen& chosen, long each, long requests,
                          const Queries& query, Kept* mixed) {
  const long d = m.width, width = d / m.heads;
  const long space = padded(*std::max_element(s.lengths, s.lengths + requests));
  float* scores = arena.take<float>(MEMORY_ROWS * space);
  Recalled* shares = arena.take<Recalled>(MEMORY_ROWS * space);
  for (long b = 0; b < requests; ++b) {
    const long from = chosen.count(0, b) * each, count = chosen.count(b, 1) * each;
    if (count == 0) continue;
    const long size = piece(s.lengths[b], width);
    const Recalled* memory = s.memory[b] + layer * 2 * m.heads * size;
    for (long h = 0; h < m.heads; ++h)
      over_memory(query.from(from, h * width), count, memory + h * size, memory + (m.heads + h) * size, s.lengths[b],
                  width, scores, shares, mixed + from * d + h * width, d);
  }
}

// Each row's past and present.
inline void descend(const State& s, const Step& t, long requests) {
  const long all = t.start + t.fed;
  for (long row = 0; row < requests * t.rows_each; ++row) {
    const int32_t* from = t.past + (t.parents == nullptr ? row : t.parents[row]) * t.start;
    int32_t* to = std::copy(from, from + t.start, t.ancestors + row * all);
    for (long place = t.start; place < all; ++place) *to++ = static_cast<int32_t>(place * s.max_rows + row);
  }
}

// The last fed token of each asked row, among those of the live rows.
inline void last_tokens(const Step& t, long requests, int32_t* tokens) {
  for (long i = 0, at = 0; i < t.asked.count(0, requests); ++i) {
    while (t.live.rows[at] != t.asked.rows[i]) ++at;
    tokens[i] = static_cast<int32_t>(at * t.fed + t.fed - 1);
  }
}

// One step for rows that go through a block together; they belong to so many requests.
inline void advance_together(const Model& m, const State& s, const Step& t, long requests) {
  const long d = m.width, live = t.live.count(0, requests);
  const int32_t* rows = t.live.rows;
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
    const Scope scope;
    const Block& block = m.decoder[layer];
    Kept* cache = s.cache + layer * s.max_tokens * s.max_rows * 2 * d;
    if (layer == 0 && m.first_qkv != nullptr)
      look_up(m, t, rows, live, wide);
    else
      product(normalised(x, count, d, m.floor, normed, scales), count, block.qkv, d, 3 * d, Store{wide, 3 * d});
    keep(m, s, t, wide, rows, live, cache);
    const bool last = layer + 1 == m.decoder_blocks;
    if (last) {  // of other tokens nothing but these keys and values is needed
      count = t.asked.count(0, requests);
      last_tokens(t, requests, tokens);
      for (long i = 0; i < count; ++i) std::memmove(x + i * d, x + tokens[i] * d, d * sizeof(float));
    }
    attend_past(m, t, wide, cache, rows, tokens, count, mixed);
    product(multipliable(mixed, d, count, d, arena), count, block.out, d, d, Add{x, d});
    Kept* query = wide;  // no longer needed
    product(normalised(x, count, d, m.floor, normed, scales), count, block.cross_q, d, d, Store{query, d});
    attend_memory(m, s, layer, last ? t.asked : t.live, last ? 1 : t.fed, requests,
                  multipliable<Recalling>(query, d, count, d, arena), mixed);
    product(multipliable(mixed, d, count, d, arena), count, block.cross_out, d, d, Add{x, d});
    add_ffn(m, block, normalised(x, count, d, m.floor, normed, scales), count, x, arena);
  }
  product(normalised(x, count, d, m.floor, normed, scales), count, t.head, d, t.head_columns,
          StoreRows{t.logits, t.head_columns, t.asked.rows});
}

// Those of the chosen rows that have the places [from, to); `ends` is room for their ends.
inline Chosen some(const Chosen& chosen, long requests, long from, long to, int64_t* ends) {
  for (long b = 0; b <= requests; ++b) ends[b] = std::clamp<int64_t>(chosen.ends[b], from, to) - from;
  return {chosen.rows + from, ends};
}

// One step for the live rows that have the places [from, to), some at a time.
inline void advance_rows(const Model& m, const State& s, const Step& t, long requests, long from, long to) {
  Step step = t;
  int64_t* ends[] = {arena.take<int64_t>(requests + 1), arena.take<int64_t>(requests + 1)};
  const int32_t *asked = t.asked.rows, *last = asked + t.asked.ends[requests];
  for (long next; from < to; from = next) {
    next = std::min(from + GROUP_ROWS / t.fed, to);
    step.live = some(t.live, requests, from, next, ends[0]);
    const auto begin = std::lower_bound(asked, last, t.live.rows[from]);
    const auto end = std::upper_bound(begin, last, t.live.rows[next - 1]);
    step.asked = some(t.asked, requests, begin - asked, end - asked, ends[1]);
    const Scope scope;
    advance_together(m, s, step, requests);
  }
}

// One step; threads share the live rows, which do not depend on each other.
inline void advance(const Model& m, const State& s, const Step& t, long requests, long threads) {
  descend(s, t, requests);
  const long live = t.live.ends[requests];
  shared(live, sharers(live * t.fed, threads),
         [&](long from, long to) { advance_rows(m, s, t, requests, from, to); });
}

}  // namespace onerec
