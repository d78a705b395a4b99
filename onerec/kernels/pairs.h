// Products of bfloat16 by AVX-512: VDPBF16PS adds the products of two pairs to each of 16 float32 sums.
//
// One side of a product is read in place, pair by pair, whatever its strides. The other one is packed into panels of
// PANEL columns: [steps][PANEL], where a step is a pair along the dimension that is summed over.
#pragma once

#include "lanes.h"

namespace onerec {

constexpr int64_t PANEL = 2 * LANES;
constexpr int64_t TILE_ROWS = 12;  // whose sums fill most of the registers

inline int64_t in_panels(int64_t columns) { return (columns + PANEL - 1) / PANEL * PANEL; }

// The side that is read in place: step s of row r is the pair at data[r * row + s * step].
struct Pairs {
  const uint32_t* data;
  int64_t row, step;
};

// Rows of bfloat16 whose elements lie side by side, `stride` elements from row to row.
struct Rows {
  uint16_t* data;
  int64_t stride;

  Pairs pairs(int64_t row) const { return {reinterpret_cast<const uint32_t*>(data + row * stride), stride / 2, 1}; }
};

inline __m512i narrowed(Floats x) { return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(x)); }

inline void narrow_to(uint16_t* to, Floats x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), (__m256i)_mm512_cvtneps_pbh(x));
}

// Low halves from the first, high ones from the second.
inline __m512i paired(__m512i first, __m512i second) { return _mm512_or_si512(first, _mm512_slli_epi32(second, 16)); }

struct Store {
  Rows to;
  void operator()(int64_t row, int64_t column, Floats low, Floats high) const {
    uint16_t* place = to.data + row * to.stride + column;
    narrow_to(place, low);
    narrow_to(place + LANES, high);
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

// result(row, column, low, high) gets the sums of PANEL columns of each of ROWS rows.
template <int ROWS, class Result>
inline void tile(const Pairs& a, const uint32_t* panel, int64_t steps, int64_t row, int64_t column,
                 const Result& result) {
  __m512 low[ROWS], high[ROWS];
#pragma GCC unroll 12
  for (int r = 0; r < ROWS; ++r) low[r] = high[r] = _mm512_setzero_ps();
  const uint32_t* from = a.data + row * a.row;
  for (int64_t s = 0; s < steps; ++s, panel += PANEL, from += a.step) {
    const __m512bh left = (__m512bh)_mm512_loadu_si512(panel), right = (__m512bh)_mm512_loadu_si512(panel + LANES);
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; ++r) {
      const __m512bh pair = (__m512bh)_mm512_set1_epi32(static_cast<int>(from[r * a.row]));
      low[r] = _mm512_dpbf16_ps(low[r], pair, left);
      high[r] = _mm512_dpbf16_ps(high[r], pair, right);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < ROWS; ++r) result(row + r, column, low[r], high[r]);
}

// The same for a number of rows that is known at run time only.
template <int ROWS = TILE_ROWS, class Result>
inline void tile_of(int64_t count, const Pairs& a, const uint32_t* panel, int64_t steps, int64_t row, int64_t column,
                    const Result& result) {
  if (count == ROWS) return tile<ROWS>(a, panel, steps, row, column, result);
  if constexpr (ROWS > 1) return tile_of<ROWS - 1>(count, a, panel, steps, row, column, result);
}

// `rows` rows of `steps` pairs times panels of `columns` columns. Tiles are evened out: 13 rows are 6 and 7.
template <class Result>
inline void product(const Pairs& a, int64_t rows, const uint32_t* panels, int64_t steps, int64_t columns,
                    const Result& result) {
  const int64_t tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
  for (int64_t column = 0; column < columns; column += PANEL, panels += steps * PANEL)
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t first = rows * t / tiles, last = rows * (t + 1) / tiles;
      tile_of(last - first, a, panels, steps, first, column, result);
    }
}

// Rows [count, width] as panels whose columns are those of the rows and whose steps are pairs of rows, the last one
// with zeros where `count` is odd. `width` is in whole panels.
inline void pack_pairs_of_rows(const Rows& rows, int64_t count, int64_t width, uint32_t* to) {
  const auto half = [&](int64_t row, int64_t column) {
    if (row >= count) return _mm512_setzero_si512();
    const uint16_t* from = rows.data + row * rows.stride + column;
    return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  };
  for (int64_t panel = 0; panel < width; panel += PANEL)
    for (int64_t row = 0; row < count; row += 2)
      for (int64_t column = panel; column < panel + PANEL; column += LANES, to += LANES)
        _mm512_storeu_si512(to, paired(half(row, column), half(row + 1, column)));
}

// 16 vectors of 16, rows and columns exchanged.
inline void transpose(__m512i* x) {
  __m512i y[LANES];
  for (int i = 0; i < 16; i += 2) {
    y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
    y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
  }
  for (int i = 0; i < 16; i += 4)
    for (int k = 0; k < 2; ++k) {
      x[i + 2 * k] = _mm512_unpacklo_epi64(y[i + k], y[i + k + 2]);
      x[i + 2 * k + 1] = _mm512_unpackhi_epi64(y[i + k], y[i + k + 2]);
    }
  // x[4 g + c] now has in its 128-bit lane l column 4 l + c of rows 4 g to 4 g + 3.
  for (int c = 0; c < 4; ++c) {
    const __m512i even = _mm512_shuffle_i32x4(x[c], x[4 + c], 0x88), odd = _mm512_shuffle_i32x4(x[c], x[4 + c], 0xdd);
    const __m512i even2 = _mm512_shuffle_i32x4(x[8 + c], x[12 + c], 0x88);
    const __m512i odd2 = _mm512_shuffle_i32x4(x[8 + c], x[12 + c], 0xdd);
    y[c] = _mm512_shuffle_i32x4(even, even2, 0x88);
    y[8 + c] = _mm512_shuffle_i32x4(even, even2, 0xdd);
    y[4 + c] = _mm512_shuffle_i32x4(odd, odd2, 0x88);
    y[12 + c] = _mm512_shuffle_i32x4(odd, odd2, 0xdd);
  }
  for (int i = 0; i < 16; ++i) x[i] = y[i];
}

// Rows [count, width] as panels whose columns are the rows, zeros behind the last one, and whose steps are pairs of a
// row's neighbouring elements. `width` is in whole panels.
inline void pack_rows_as_columns(const Rows& rows, int64_t count, int64_t width, uint32_t* to) {
  const int64_t steps = width / 2;
  for (int64_t first = 0; first < count; first += PANEL, to += steps * PANEL)
    for (int64_t half = 0; half < PANEL; half += LANES)
      for (int64_t step = 0; step < steps; step += LANES) {
        __m512i block[LANES];
        for (int64_t lane = 0; lane < LANES; ++lane) {
          const int64_t row = first + half + lane;
          block[lane] = row < count ? _mm512_loadu_si512(rows.data + row * rows.stride + 2 * step)
                                    : _mm512_setzero_si512();
        }
        transpose(block);
        for (int64_t lane = 0; lane < LANES; ++lane)
          _mm512_storeu_si512(to + (step + lane) * PANEL + half, block[lane]);
      }
}

}  // namespace onerec
