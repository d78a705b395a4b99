// Attention over heads as projections leave them, forward and backward: scores stay in the cache, and a head's rows are
// read and written where they lie in the projections' rows. Products of bfloat16, the softmax in float32.
#pragma once

#include "packed.h"
#include "softmax.h"

namespace onerec {

// [batch, positions, heads, width] in bfloat16: a head's elements lie side by side, heads too; samples without gaps.
struct Heads {
  uint16_t* data;
  int64_t row;  // elements from position to position

  Rows of(int64_t sample, int64_t head, int64_t positions, int64_t width) const {
    return {data + sample * positions * row + head * width, row};
  }
};

// Queries of `scores.queries` positions over keys and values of `scores.keys`; `width` of a head is in whole panels.
struct Attention {
  Scores scores;
  int64_t width;
  Heads query, key, value;
  Row* kept;  // [batch, heads, queries]
};

struct StoreScaled {
  Rows to;
  const float* factors;  // one for each row
  void operator()(int64_t row, int64_t column, Floats low, Floats high) const {
    Store{to}(row, column, low * factors[row], high * factors[row]);
  }
};

// Calls work(at, scores) for a row's scores in vectors, scaled and with their bias; minus infinity behind the last key.
template <class Work>
inline void each_vector(const Scores& scores, const float* row, const float* bias, int64_t space, const Work& work) {
  const Floats scale = all(scores.scale), nothing = all(-INFINITE);
  const int64_t whole = scores.keys / LANES * LANES;
  if (bias) {
    for (int64_t at = 0; at < whole; at += LANES) work(at, _mm512_fmadd_ps(load(row + at), scale, load(bias + at)));
  } else {
    for (int64_t at = 0; at < whole; at += LANES) work(at, load(row + at) * scale);
  }
  for (int64_t at = whole; at < space; at += LANES) {
    const __mmask16 there = lanes_to(scores.keys - at);
    const Floats added = bias ? _mm512_mask_loadu_ps(nothing, there, bias + at)
                              : _mm512_mask_mov_ps(nothing, there, all(0.0f));
    work(at, _mm512_fmadd_ps(load(row + at), scale, added));
  }
}

// Exponentials of a row, `space` of them, as bfloat16; what they sum to is kept.
inline Row shares_of(const Scores& scores, const float* bias, float* row, int64_t space, uint16_t* to) {
  Floats most = all(-INFINITE), total = all(0.0f);
  each_vector(scores, row, bias, space, [&](int64_t at, Floats x) {
    store(row + at, x);
    most = larger(x, most);
  });
  const float top = _mm512_reduce_max_ps(most);
  for (int64_t at = 0; at < space; at += LANES) {
    const Floats e = exponential(load(row + at) - top);
    narrow_to(to + at, e);
    total += e;
  }
  return {top, 1.0f / sum(total)};
}

// What a head is attended with, in turn by all heads of a thread.
class AttendingScratch {
 public:
  explicit AttendingScratch(const Attention& given)
      : space(in_panels(given.scores.keys)), key_steps((given.scores.keys + 1) / 2),
        memory_(space * given.width / 2 + key_steps * given.width + TILE_ROWS * (space + space / 2)),
        key_panels(memory_.take<uint32_t>(space * given.width / 2)),
        value_panels(memory_.take<uint32_t>(key_steps * given.width)),
        products(memory_.take<float>(TILE_ROWS * space)),
        shares(memory_.take<uint16_t>(TILE_ROWS * space / 2)) {}

  const int64_t space, key_steps;

 private:
  Scratch memory_;

 public:
  uint32_t *const key_panels, *const value_panels;
  float* const products;
  uint16_t* const shares;
};

// One head of one sample; `at` counts them, `to` are its rows of the result.
inline void attend(const Attention& given, int64_t at, const Rows& to, AttendingScratch& with) {
  const Scores& scores = given.scores;
  const int64_t queries = scores.queries, keys = scores.keys, width = given.width, space = with.space;
  const int64_t sample = at / scores.heads, head = at % scores.heads;
  const Rows query = given.query.of(sample, head, queries, width);
  pack_rows_as_columns(given.key.of(sample, head, keys, width), keys, width, with.key_panels);
  pack_pairs_of_rows(given.value.of(sample, head, keys, width), keys, width, with.value_panels);
  for (int64_t from = 0; from < queries; from += TILE_ROWS) {
    const int64_t rows = std::min(TILE_ROWS, queries - from);
    float inverse[TILE_ROWS];
    product(query.pairs(from), rows, with.key_panels, width / 2, space, StoreFloat{with.products, space});
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t place = at * queries + from + row;
      Row& kept = given.kept[place];
      kept = shares_of(scores, scores.bias_of(place), with.products + row * space, space, with.shares + row * space);
      inverse[row] = kept.inverse;
    }
    const Rows mixed{to.data + from * to.stride, to.stride};
    product(Rows{with.shares, space}.pairs(0), rows, with.value_panels, with.key_steps, width,
            StoreScaled{mixed, inverse});
  }
}

inline void attention_forward(const Attention& given, const Heads& out, int64_t threads) {
  const Scores& scores = given.scores;
  each_part(scores.batch * scores.heads, scores.queries * scores.keys, threads, [&](int64_t first, int64_t last) {
    AttendingScratch scratch(given);
    for (int64_t at = first; at < last; ++at)
      attend(given, at, out.of(at / scores.heads, at % scores.heads, scores.queries, given.width), scratch);
  });
}

// Shares of a row again, in the place of its products; returns what flows back along it.
inline float shares_again(const Scores& scores, const float* bias, const Row& kept, float* row, const float* flows,
                          int64_t space) {
  Floats along = all(0.0f);
  each_vector(scores, row, bias, space, [&](int64_t at, Floats x) {
    const Floats share = exponential(x - kept.largest) * kept.inverse;
    store(row + at, share);
    along += share * load(flows + at);
  });
  return sum(along);
}

// What two neighbouring rows of queries give to the products of the backward.
struct Backward {
  uint16_t* grads;          // of the products, [2, space]
  uint32_t* paired_shares;  // [space]: of both rows
  uint32_t* paired_grads;
};

// `rows` is 2, or 1 at the end of an odd number of queries.
inline void flow_back(int64_t rows, const float* shares, const float* flows, const float* along, float scale,
                      int64_t space, const Backward& to) {
  for (int64_t at = 0; at < space; at += LANES) {
    __m512i share[2], grad[2];
    for (int64_t row = 0; row < 2; ++row) {
      const bool there = row < rows;
      const Floats p = there ? load(shares + row * space + at) : all(0.0f);
      const Floats g = there ? p * (load(flows + row * space + at) - along[row]) * scale : all(0.0f);
      share[row] = narrowed(p);
      grad[row] = narrowed(g);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to.grads + row * space + at), _mm512_cvtepi32_epi16(grad[row]));
    }
    _mm512_storeu_si512(to.paired_shares + at, paired(share[0], share[1]));
    _mm512_storeu_si512(to.paired_grads + at, paired(grad[0], grad[1]));
  }
}

class BackwardScratch {
 public:
  explicit BackwardScratch(const Attention& given)
      : space(in_panels(given.scores.keys)), key_steps((given.scores.keys + 1) / 2),
        query_steps((given.scores.queries + 1) / 2),
        memory_(space * given.width + (key_steps + 2 * query_steps) * given.width +
                TILE_ROWS * (2 * space + space / 2) + 2 * query_steps * space),
        key_panels(memory_.take<uint32_t>(space * given.width / 2)),
        value_panels(memory_.take<uint32_t>(space * given.width / 2)),
        key_pairs(memory_.take<uint32_t>(key_steps * given.width)),
        query_pairs(memory_.take<uint32_t>(query_steps * given.width)),
        out_pairs(memory_.take<uint32_t>(query_steps * given.width)),
        products(memory_.take<float>(TILE_ROWS * space)),
        flows(memory_.take<float>(TILE_ROWS * space)),
        low(memory_.take<uint16_t>(TILE_ROWS * space / 2)),
        paired_shares(memory_.take<uint32_t>(query_steps * space)),
        paired_grads(memory_.take<uint32_t>(query_steps * space)) {}

  const int64_t space, key_steps, query_steps;

 private:
  Scratch memory_;

 public:
  uint32_t *const key_panels, *const value_panels, *const key_pairs, *const query_pairs, *const out_pairs;
  float *const products, *const flows;
  uint16_t* const low;
  uint32_t *const paired_shares, *const paired_grads;
};

// Rows of one head of one sample: the gradient of what the forward gave out, and where those of its inputs go.
struct HeadGradients {
  Rows out, query, key, value;
};

// `at` counts heads and samples, as in the forward.
inline void attend_backward(const Attention& given, int64_t at, const HeadGradients& grads, BackwardScratch& with) {
  const Scores& scores = given.scores;
  const int64_t queries = scores.queries, keys = scores.keys, width = given.width, space = with.space;
  const int64_t sample = at / scores.heads, head = at % scores.heads;
  const Rows query = given.query.of(sample, head, queries, width), key = given.key.of(sample, head, keys, width);
  pack_rows_as_columns(key, keys, width, with.key_panels);
  pack_rows_as_columns(given.value.of(sample, head, keys, width), keys, width, with.value_panels);
  pack_pairs_of_rows(key, keys, width, with.key_pairs);
  pack_pairs_of_rows(query, queries, width, with.query_pairs);
  pack_pairs_of_rows(grads.out, queries, width, with.out_pairs);
  for (int64_t from = 0; from < queries; from += TILE_ROWS) {
    const int64_t rows = std::min(TILE_ROWS, queries - from);
    product(query.pairs(from), rows, with.key_panels, width / 2, space, StoreFloat{with.products, space});
    product(grads.out.pairs(from), rows, with.value_panels, width / 2, space, StoreFloat{with.flows, space});
    for (int64_t row = 0; row < rows; row += 2) {
      const int64_t both = std::min(int64_t{2}, rows - row), step = (from + row) / 2 * space;
      float along[2];
      for (int64_t one = 0; one < both; ++one) {
        const int64_t place = at * queries + from + row + one, start = (row + one) * space;
        along[one] = shares_again(scores, scores.bias_of(place), given.kept[place], with.products + start,
                                  with.flows + start, space);
      }
      flow_back(both, with.products + row * space, with.flows + row * space, along, scores.scale, space,
                {with.low + row * space, with.paired_shares + step, with.paired_grads + step});
    }
    const Rows to{grads.query.data + from * grads.query.stride, grads.query.stride};
    product(Rows{with.low, space}.pairs(0), rows, with.key_pairs, with.key_steps, width, Store{to});
  }
  const Pairs by_key{with.paired_grads, 1, space}, shares_by_key{with.paired_shares, 1, space};
  product(by_key, keys, with.query_pairs, with.query_steps, width, Store{grads.key});
  product(shares_by_key, keys, with.out_pairs, with.query_steps, width, Store{grads.value});
}

// Of queries, keys and values, from the gradient of what the forward gave out.
struct AttentionGradients {
  Heads out, query, key, value;
};

inline void attention_backward(const Attention& given, const AttentionGradients& grads, int64_t threads) {
  const Scores& scores = given.scores;
  const int64_t queries = scores.queries, keys = scores.keys, width = given.width;
  each_part(scores.batch * scores.heads, queries * keys, threads, [&](int64_t first, int64_t last) {
    BackwardScratch scratch(given);
    for (int64_t at = first; at < last; ++at) {
      const int64_t sample = at / scores.heads, head = at % scores.heads;
      const HeadGradients own{grads.out.of(sample, head, queries, width), grads.query.of(sample, head, queries, width),
                              grads.key.of(sample, head, keys, width), grads.value.of(sample, head, keys, width)};
      attend_backward(given, at, own, scratch);
    }
  });
}

}  // namespace onerec
