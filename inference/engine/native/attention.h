// RMS norm, attention of beams over their own past, and attention over memory.
#pragma once
#include <algorithm>

#include "product.h"

namespace onerec {

// x / hypot(|x|, floor): what is left of RMSNorm once gain and sqrt(d) are folded into the weights that follow.
inline void normalise(const float* x, long rows, long d, float floor, Element* to) {
  for (long row = 0; row < rows; ++row, x += d, to += d) {
    Vector low = Isa::zero(), high = low;
    for (long c = 0; c < d; c += 2 * LANES) {
      const Vector a = Isa::load(x + c), b = Isa::load(x + c + LANES);
      low = Isa::fma(a, a, low);
      high = Isa::fma(b, b, high);
    }
    const Vector scale = Isa::all(1.0f / std::sqrt(Isa::sum(Isa::add(low, high)) + floor * floor));
    for (long c = 0; c < d; c += LANES) Isa::store(to + c, Isa::mul(scale, Isa::load(x + c)));
  }
}

// scores[0, length) to exp(score - max) and the rest up to `space`, whole vectors, to 0. Returns their sum.
inline float exponentials(float* scores, long length, long space) {
  std::fill(scores + length, scores + space, -INFINITY);
  Vector highest = Isa::load(scores);
  for (long t = LANES; t < space; t += LANES) highest = Isa::max(highest, Isa::load(scores + t));
  const Vector top = Isa::all(Isa::most(highest));
  Vector sum = Isa::zero();
  for (long t = 0; t < space; t += LANES) {
    const Vector e = exp(Isa::sub(Isa::load(scores + t), top));
    Isa::store(scores + t, e);
    sum = Isa::add(sum, e);
  }
  return Isa::sum(sum);
}

constexpr long MAX_TOKENS = 64;  // of a session, BOS included

// One row's queries over the keys and values [2d] of `length` ancestors, which lie at cache + ancestors[t] * 2d.
// WIDTH is that of a head.
template <int WIDTH>
inline void over_ancestors(const Element* query, const Element* cache, const int32_t* ancestors, long length, long d,
                           long heads, Element* to) {
  constexpr int FACTORS = WIDTH / FACTOR, VECTORS = WIDTH / LANES;
  alignas(64) float scores[MAX_TOKENS];
  const long space = (length + LANES - 1) / LANES * LANES;
  for (long h = 0; h < heads; ++h) {
    Isa::Factor q[FACTORS];
    for (int c = 0; c < FACTORS; ++c) q[c] = Isa::factor(query + h * WIDTH + c * FACTOR);
    for (long t = 0; t < length; ++t) {
      const Element* key = cache + static_cast<long>(ancestors[t]) * 2 * d + h * WIDTH;
      Vector sum = Isa::zero();
      for (int c = 0; c < FACTORS; ++c) sum = Isa::multiply(sum, q[c], Isa::factor(key + c * FACTOR));
      scores[t] = Isa::sum(sum);
    }
    const Vector scale = Isa::all(1.0f / exponentials(scores, length, space));
    Vector mixed[VECTORS];
    for (auto& part : mixed) part = Isa::zero();
    for (long t = 0; t < length; ++t) {
      const Element* value = cache + static_cast<long>(ancestors[t]) * 2 * d + d + h * WIDTH;
      const Vector share = Isa::all(scores[t]);
      for (int c = 0; c < VECTORS; ++c) mixed[c] = Isa::fma(share, Isa::widen(value + c * LANES), mixed[c]);
    }
    for (int c = 0; c < VECTORS; ++c) Isa::store(to + h * WIDTH + c * LANES, Isa::mul(mixed[c], scale));
  }
}

// `rows` queries of one head over a memory of `length` positions (`space` with its padding): keys packed as
// [width, space], values packed as [space, width]. A tile of rows at a time, whose scores stay in the first cache.
// `scores` and `shares` have room for TILE_ROWS * space.
inline void over_memory(const Element* query, long stride, long rows, const Element* keys, const Element* values,
                        long length, long space, long width, float* scores, Element* shares, Element* to,
                        long to_stride) {
  const long used = std::min(space, padded(length));
  for (long row = 0; row < rows; row += TILE_ROWS) {
    const long count = std::min<long>(TILE_ROWS, rows - row);
    product(query + row * stride, stride, count, keys, width, used, StoreFloat{scores, space});
    float sums[TILE_ROWS];
    for (long r = 0; r < count; ++r) {
      sums[r] = exponentials(scores + r * space, length, used);
      for (long t = 0; t < used; t += LANES)
        Isa::store(shares + r * space + t, Isa::load(scores + r * space + t));
    }
    for (long column = 0; column < width; column += PANEL)
      tile_of(count, shares, space, values + column * space, used, 0, column,
              StoreOver{to + row * to_stride, to_stride, sums});
  }
}

// A matrix [k, n] whose element (row, column) is element(row, column), packed; n in whole panels.
template <class ElementAt>
inline void pack(long k, long n, const ElementAt& element, Element* to) {
  for (long from = 0; from < n; from += PANEL)
    for (long row = 0; row < k; row += PAIR)
      for (long column = from; column < from + PANEL; ++column)
        for (int i = 0; i < PAIR; ++i) *to++ = element(row + i, column);
}

// Keys [length, width] with `stride` between positions -> packed [width, space], padding 0.
inline void pack_keys(const Element* keys, long stride, long length, long space, long width, Element* to) {
  pack(width, space, [=](long c, long t) { return t < length ? keys[t * stride + c] : Element(0); }, to);
}

// Values [length, width] with `stride` between positions -> packed [space, width], padding 0.
inline void pack_values(const Element* values, long stride, long length, long space, long width, Element* to) {
  pack(space, width, [=](long t, long c) { return t < length ? values[t * stride + c] : Element(0); }, to);
}

}  // namespace onerec
