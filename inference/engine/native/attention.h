// RMS norm, attention of beams over their own past, and attention over memory.
#pragma once
#include <algorithm>

#include "chosen.h"

namespace onerec {

// x / hypot(|x|, floor): what is left of RMSNorm once gain and sqrt(d) are folded into the weights that follow.
inline Rows normalised(const float* x, long rows, long d, float floor, Element* to, float* scales) {
  const Rows result{to, d, scales};
  for (long row = 0; row < rows; ++row, x += d, to += d) {
    Vector low = Isa::zero(), high = low;
    for (long c = 0; c < d; c += 2 * LANES) {
      const Vector a = Isa::load(x + c), b = Isa::load(x + c + LANES);
      low = Isa::fma(a, a, low);
      high = Isa::fma(b, b, high);
    }
    scales[row] = narrow_row(x, d, 1.0f / std::sqrt(Isa::sum(Isa::add(low, high)) + floor * floor), to);
  }
  return result;
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
// WIDTH is that of a head. `next` are the ancestors of the row that comes after it: they lie anywhere in a cache that
// is larger than the processor's, which would wait for each.
template <int WIDTH>
inline void over_ancestors(const Kept* query, const Kept* cache, const int32_t* ancestors, const int32_t* next,
                           long length, long d, long heads, Kept* to) {
  constexpr int FACTORS = WIDTH / KEPT_FACTOR, VECTORS = WIDTH / LANES;
  alignas(64) float scores[MAX_TOKENS];
  const long space = (length + LANES - 1) / LANES * LANES;
  for (long h = 0; h < heads; ++h) {
    Keeping::Factor q[FACTORS];
    for (int c = 0; c < FACTORS; ++c) q[c] = Keeping::factor(query + h * WIDTH + c * KEPT_FACTOR);
    for (long t = 0; t < length; ++t) {
      const Kept* key = cache + static_cast<long>(ancestors[t]) * 2 * d + h * WIDTH;
      fetch_soon<WIDTH>(cache + static_cast<long>(next[t]) * 2 * d + h * WIDTH);
      Vector sum = Isa::zero();
      for (int c = 0; c < FACTORS; ++c) sum = Keeping::multiply(sum, q[c], Keeping::factor(key + c * KEPT_FACTOR));
      scores[t] = Isa::sum(sum);
    }
    const Vector scale = Isa::all(1.0f / exponentials(scores, length, space));
    Vector mixed[VECTORS];
    for (auto& part : mixed) part = Isa::zero();
    for (long t = 0; t < length; ++t) {
      const Kept* value = cache + static_cast<long>(ancestors[t]) * 2 * d + d + h * WIDTH;
      fetch_soon<WIDTH>(cache + static_cast<long>(next[t]) * 2 * d + d + h * WIDTH);
      const Vector share = Isa::all(scores[t]);
      for (int c = 0; c < VECTORS; ++c) mixed[c] = Isa::fma(share, Keeping::widen(value + c * LANES), mixed[c]);
    }
    for (int c = 0; c < VECTORS; ++c) Keeping::store(to + h * WIDTH + c * LANES, Isa::mul(mixed[c], scale));
  }
}

constexpr float SHARES = 16383.0f;  // the largest share of a row of integers

// Exponentials of one row as elements, zeros up to whole vectors; returns their sum as the elements have it.
inline float shares_of(float* scores, long length, long space, Recalled* shares) {
  const float sum = exponentials(scores, length, space);
  if constexpr (!Recalling::SCALED) {
    for (long t = 0; t < space; t += LANES) Recalling::store(shares + t, Isa::load(scores + t));
    return sum;
  }
  Vector whole = Isa::zero();
  for (long t = 0; t < space; t += LANES) {
    const Vector share = Isa::mul(Isa::all(SHARES), Isa::load(scores + t));
    Recalling::store(shares + t, share);
    whole = Isa::add(whole, Isa::nearest(share));
  }
  return Isa::sum(whole) / SHARES;
}

// `count` queries of one head over a memory of `length` positions (`space` with its padding): keys packed as
// [width, space], values packed as [space, width]. A few rows at a time, whose scores stay in the first cache.
// `scores` and `shares` have room for MEMORY_ROWS * space.
inline void over_memory(const Queries& query, long count, const Recalled* keys, const Recalled* values, long length,
                        long width, float* scores, Recalled* shares, Kept* to, long to_stride) {
  const long space = padded(length);
  float unit[MEMORY_ROWS], sums[MEMORY_ROWS];
  std::fill(unit, unit + MEMORY_ROWS, 1.0f / SHARES);
  for (long row = 0; row < count; row += MEMORY_ROWS) {
    const long rows = std::min<long>(MEMORY_ROWS, count - row);
    product(query.from(row), rows, keys, width, space, StoreFloat{scores, space});
    for (long r = 0; r < rows; ++r) sums[r] = shares_of(scores + r * space, length, space, shares + r * space);
    product(Queries{shares, space, unit}, rows, values, space, width, StoreOver{to + row * to_stride, to_stride, sums});
  }
}

#ifdef ONEREC_INT16
// Below, what `pack` does for keys and values, with vectors: a tenth of the encoder's time otherwise.
inline Vector size_of(Vector x) { return Isa::max(x, Isa::sub(Isa::zero(), x)); }

// One panel of keys: its columns are positions from `from` on, each of `width` floats that lie together.
inline void pack_keys_panel(const float* keys, long stride, long from, long length, long width, Recalled* to) {
  float* scales = reinterpret_cast<float*>(to + width * PANEL);
  alignas(32) Recalled whole[128];  // the widest head
  for (long column = 0; column < PANEL; ++column) {
    const float* key = keys + (from + column) * stride;
    const bool there = from + column < length;
    Vector most = Isa::zero(), sum = most;
    for (long c = 0; there && c < width; c += LANES) {
      const Vector size = size_of(Isa::load(key + c));
      most = Isa::max(most, size);
      sum = Isa::add(sum, size);
    }
    scales[column] = Isa::fitting_scale(Isa::most(most), Isa::sum(sum), width, Isa::LARGEST);
    const Vector factor = Isa::all(there ? 1.0f / scales[column] : 0.0f);
    for (long c = 0; c < width; c += LANES)
      Isa::store(whole + c, there ? Isa::mul(factor, Isa::load(key + c)) : Isa::zero());
    for (long c = 0; c < width; c += Recalling::PAIR)
      std::memcpy(to + c * PANEL + column * Recalling::PAIR, whole + c, Recalling::PAIR * sizeof(Recalled));
  }
}

// LANES columns of values from `column` on: rows are positions.
inline void pack_values_lanes(const float* values, long stride, long length, long space, float* scales, Recalled* to) {
  Vector most = Isa::zero(), sum = most;
  for (long t = 0; t < length; ++t) {
    const Vector size = size_of(Isa::load(values + t * stride));
    most = Isa::max(most, size);
    sum = Isa::add(sum, size);
  }
  alignas(32) float mosts[LANES], sums[LANES], factors[LANES];
  Isa::store(mosts, most), Isa::store(sums, sum);
  for (int i = 0; i < LANES; ++i) {
    scales[i] = Isa::fitting_scale(mosts[i], sums[i], space, SHARES);
    factors[i] = 1.0f / scales[i];
  }
  const Vector factor = Isa::load(factors);
  alignas(32) Recalled even[LANES], odd[LANES];
  for (long t = 0; t < space; t += Recalling::PAIR, to += Recalling::PAIR * PANEL) {
    Isa::store(even, t < length ? Isa::mul(factor, Isa::load(values + t * stride)) : Isa::zero());
    Isa::store(odd, t + 1 < length ? Isa::mul(factor, Isa::load(values + (t + 1) * stride)) : Isa::zero());
    for (int i = 0; i < LANES; ++i) to[2 * i] = even[i], to[2 * i + 1] = odd[i];
  }
}

// Keys [length, width] with `stride` between positions -> packed [width, space], padding 0.
inline void pack_keys(const Kept* keys, long stride, long length, long space, long width, Recalled* to) {
  for (long from = 0; from < space; from += PANEL, to += panel_elements<Recalling>(width))
    pack_keys_panel(keys, stride, from, length, width, to);
}

// Values [length, width] with `stride` between positions -> packed [space, width], padding 0.
inline void pack_values(const Kept* values, long stride, long length, long space, long width, Recalled* to) {
  for (long from = 0; from < width; from += PANEL, to += panel_elements<Recalling>(space)) {
    float* scales = reinterpret_cast<float*>(to + space * PANEL);
    for (long half = 0; half < PANEL; half += LANES)
      pack_values_lanes(values + from + half, stride, length, space, scales + half, to + half * Recalling::PAIR);
  }
}
#else
// Keys [length, width] with `stride` between positions -> packed [width, space], padding 0.
inline void pack_keys(const Kept* keys, long stride, long length, long space, long width, Recalled* to) {
  if constexpr (Recalling::PAIR == 1)
    return pack<Recalling>(
        width, space, [=](long c, long t) { return t < length ? keys[t * stride + c] : Kept(0); }, to);
  for (long from = 0; from < space; from += PANEL, to += panel_elements<Recalling>(width))
    for (long column = 0; column < PANEL; ++column) {  // a pair of a key's elements at a time
      const Kept* key = keys + (from + column) * stride;
      Recalled* place = to + column * Recalling::PAIR;
      const bool there = from + column < length;
      for (long c = 0; c < width; c += Recalling::PAIR, place += Recalling::PAIR * PANEL) {
        if (there)
          std::memcpy(place, key + c, Recalling::PAIR * sizeof(Recalled));
        else
          std::fill(place, place + Recalling::PAIR, Recalled(0));
      }
    }
}

// Values [length, width] with `stride` between positions -> packed [space, width], padding 0.
inline void pack_values(const Kept* values, long stride, long length, long space, long width, Recalled* to) {
  if constexpr (Recalling::PAIR == 1)
    return pack<Recalling>(
        space, width, [=](long t, long c) { return t < length ? values[t * stride + c] : Kept(0); }, to);
  static const Kept nothing[PANEL] = {};
  for (long from = 0; from < width; from += PANEL, to += panel_elements<Recalling>(space)) {
    Recalled* place = to;
    for (long t = 0; t < space; t += Recalling::PAIR, place += Recalling::PAIR * PANEL) {  // two positions, interleaved
      const Kept* even = t < length ? values + t * stride + from : nothing;
      const Kept* odd = t + 1 < length ? values + (t + 1) * stride + from : nothing;
      for (long i = 0; i < PANEL; ++i) place[2 * i] = even[i], place[2 * i + 1] = odd[i];
    }
  }
}
#endif

}  // namespace onerec
