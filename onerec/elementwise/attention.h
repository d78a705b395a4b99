// Attention over heads as projections leave them, forward and backward: scores stay in the cache, and a head's rows are
// read and written where they lie in the projections' rows. Products of bfloat16, the softmax in float32.
#pragma once

#include <cstdlib>
#include <memory>
#include <new>

#include "pairs.h"
#include "softmax.h"
#include "team.h"

namespace onerec {

// [batch, positions, heads, width] in bfloat16: a head's elements lie side by side, heads too; samples lie without gaps.
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

// Memory of one thread, for all of its heads.
class Scratch {
 public:
  explicit Scratch(int64_t words)
      : words_(static_cast<uint32_t*>(std::aligned_alloc(64, (words * 4 + 63) / 64 * 64)), std::free) {
    if (!words_) throw std::bad_alloc();
    next_ = words_.get();
  }

  template <class T>
  T* take(int64_t words) {
    uint32_t* found = next_;
    next_ += words;
    return reinterpret_cast<T*>(found);
  }

 private:
  std::unique_ptr<uint32_t, decltype(&std::free)> words_;
  uint32_t* next_;
};

struct Store {
  Rows to;
  void operator()(int64_t row, int64_t column, Floats low, Floats high) const {
    uint16_t* place = to.data + row * to.stride + column;
    narrow_to(place, low);
    narrow_to(place + LANES, high);
  }
};

struct StoreScaled {
  Rows to;
  const float* factors;  // one for each row
  void operator()(int64_t row, int64_t column, Floats low, Floats high) const {
    Store{to}(row, column, low * factors[row], high * factors[row]);
  }
};

struct StoreFloat {
  float* to;
  int64_t stride;
  void operator()(int64_t row, int64_t column, Floats low, Floats high) const {
    store(to + row * stride + column, low);
    store(to + row * stride + column + LANES, high);
  }
};

// Scores of a row from column `at` on, scaled and with their bias; minus infinity behind the last key.
inline Floats biased(const Scores& scores, const float* row, const float* bias, int64_t at) {
  const int64_t left = scores.keys - at;
  const __mmask16 there = left >= LANES ? 0xffff : left > 0 ? (1 << left) - 1 : 0;
  const Floats nothing = all(-INFINITE);
  const Floats added =
      bias ? _mm512_mask_loadu_ps(nothing, there, bias + at) : _mm512_mask_mov_ps(nothing, there, all(0.0f));
  return load(row + at) * scores.scale + added;
}

// Exponentials of a row, `space` of them, as bfloat16; what they sum to is kept.
inline Row shares_of(const Scores& scores, const float* bias, float* row, int64_t space, uint16_t* to) {
  Floats most = all(-INFINITE), total = all(0.0f);
  for (int64_t at = 0; at < space; at += LANES) {
    const Floats x = biased(scores, row, bias, at);
    store(row + at, x);
    most = larger(x, most);
  }
  const float top = _mm512_reduce_max_ps(most);
  for (int64_t at = 0; at < space; at += LANES) {
    const Floats e = exponential(load(row + at) - top);
    narrow_to(to + at, e);
    total += e;
  }
  return {top, 1.0f / sum(total)};
}

inline void attention_forward(const Attention& given, const Heads& out, int64_t threads) {
  const Scores& scores = given.scores;
  const int64_t queries = scores.queries, keys = scores.keys, width = given.width;
  const int64_t space = in_panels(keys), key_steps = (keys + 1) / 2;
  each_part(scores.batch * scores.heads, queries * keys, threads, [&](int64_t first, int64_t last) {
    Scratch scratch(space * width / 2 + key_steps * width + TILE_ROWS * (space + space / 2));
    uint32_t* key_panels = scratch.take<uint32_t>(space * width / 2);
    uint32_t* value_panels = scratch.take<uint32_t>(key_steps * width);
    float* products = scratch.take<float>(TILE_ROWS * space);
    uint16_t* shares = scratch.take<uint16_t>(TILE_ROWS * space / 2);
    for (int64_t at = first; at < last; ++at) {
      const int64_t sample = at / scores.heads, head = at % scores.heads;
      const Rows query = given.query.of(sample, head, queries, width), to = out.of(sample, head, queries, width);
      pack_rows_as_columns(given.key.of(sample, head, keys, width), keys, width, key_panels);
      pack_pairs_of_rows(given.value.of(sample, head, keys, width), keys, width, value_panels);
      for (int64_t from = 0; from < queries; from += TILE_ROWS) {
        const int64_t rows = queries - from < TILE_ROWS ? queries - from : TILE_ROWS;
        float inverse[TILE_ROWS];
        product(query.pairs(from), rows, key_panels, width / 2, space, StoreFloat{products, space});
        for (int64_t row = 0; row < rows; ++row) {
          const int64_t place = at * queries + from + row;
          Row& kept = given.kept[place];
          kept = shares_of(scores, scores.bias_of(place), products + row * space, space, shares + row * space);
          inverse[row] = kept.inverse;
        }
        const Rows mixed{to.data + from * to.stride, to.stride};
        product(Rows{shares, space}.pairs(0), rows, value_panels, key_steps, width, StoreScaled{mixed, inverse});
      }
    }
  });
}

// Shares of a row again, in the place of its products; returns what flows back along it.
inline float shares_again(const Scores& scores, const float* bias, const Row& kept, float* row, const float* flows,
                          int64_t space) {
  Floats along = all(0.0f);
  for (int64_t at = 0; at < space; at += LANES) {
    const Floats share = exponential(biased(scores, row, bias, at) - kept.largest) * kept.inverse;
    store(row + at, share);
    along += share * load(flows + at);
  }
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

// Of queries, keys and values, from the gradient of what the forward gave out.
struct AttentionGradients {
  Heads out, query, key, value;
};

inline void attention_backward(const Attention& given, const AttentionGradients& grads, int64_t threads) {
  const Scores& scores = given.scores;
  const int64_t queries = scores.queries, keys = scores.keys, width = given.width;
  const int64_t space = in_panels(keys), key_steps = (keys + 1) / 2, query_steps = (queries + 1) / 2;
  const int64_t words = space * width + (key_steps + 2 * query_steps) * width + TILE_ROWS * (2 * space + space / 2) +
                        2 * query_steps * space;
  each_part(scores.batch * scores.heads, queries * keys, threads, [&](int64_t first, int64_t last) {
    Scratch scratch(words);
    uint32_t* key_panels = scratch.take<uint32_t>(space * width / 2);
    uint32_t* value_panels = scratch.take<uint32_t>(space * width / 2);
    uint32_t* key_pairs = scratch.take<uint32_t>(key_steps * width);
    uint32_t* query_pairs = scratch.take<uint32_t>(query_steps * width);
    uint32_t* out_pairs = scratch.take<uint32_t>(query_steps * width);
    float* products = scratch.take<float>(TILE_ROWS * space);
    float* flows = scratch.take<float>(TILE_ROWS * space);
    uint16_t* low = scratch.take<uint16_t>(TILE_ROWS * space / 2);
    uint32_t* paired_shares = scratch.take<uint32_t>(query_steps * space);
    uint32_t* paired_grads = scratch.take<uint32_t>(query_steps * space);
    for (int64_t at = first; at < last; ++at) {
      const int64_t sample = at / scores.heads, head = at % scores.heads;
      const Rows query = given.query.of(sample, head, queries, width), key = given.key.of(sample, head, keys, width);
      const Rows out = grads.out.of(sample, head, queries, width);
      const Rows grad_query = grads.query.of(sample, head, queries, width);
      pack_rows_as_columns(key, keys, width, key_panels);
      pack_rows_as_columns(given.value.of(sample, head, keys, width), keys, width, value_panels);
      pack_pairs_of_rows(key, keys, width, key_pairs);
      pack_pairs_of_rows(query, queries, width, query_pairs);
      pack_pairs_of_rows(out, queries, width, out_pairs);
      for (int64_t from = 0; from < queries; from += TILE_ROWS) {
        const int64_t rows = queries - from < TILE_ROWS ? queries - from : TILE_ROWS;
        product(query.pairs(from), rows, key_panels, width / 2, space, StoreFloat{products, space});
        product(out.pairs(from), rows, value_panels, width / 2, space, StoreFloat{flows, space});
        for (int64_t row = 0; row < rows; row += 2) {
          const int64_t both = rows - row < 2 ? 1 : 2, step = (from + row) / 2 * space;
          float along[2];
          for (int64_t one = 0; one < both; ++one) {
            const int64_t place = at * queries + from + row + one, start = (row + one) * space;
            along[one] = shares_again(scores, scores.bias_of(place), given.kept[place], products + start,
                                      flows + start, space);
          }
          flow_back(both, products + row * space, flows + row * space, along, scores.scale, space,
                    {low + row * space, paired_shares + step, paired_grads + step});
        }
        const Rows to{grad_query.data + from * grad_query.stride, grad_query.stride};
        product(Rows{low, space}.pairs(0), rows, key_pairs, key_steps, width, Store{to});
      }
      const Pairs by_key{paired_grads, 1, space}, shares_by_key{paired_shares, 1, space};
      product(by_key, keys, query_pairs, query_steps, width, Store{grads.key.of(sample, head, keys, width)});
      product(shares_by_key, keys, out_pairs, query_steps, width, Store{grads.value.of(sample, head, keys, width)});
    }
  });
}

}  // namespace onerec
