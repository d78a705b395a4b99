// Products of rows with packed weights, and what is done with each tile of results.
//
// A packed matrix [k, n] is cut into panels of 2 * LANES columns; a panel holds, for each PAIR of rows of the matrix,
// the pairs of its columns one after the other: [n / PANEL][k / PAIR][PANEL][PAIR]. One multiply-accumulate then takes
// a pair of one row of inputs and the pairs of LANES columns. A tile is TILE_ROWS rows by PANEL columns, whose sums
// fill most of the registers.
#pragma once
#include "isa.h"

namespace onerec {

// What becomes of a tile's row: `low` are the first LANES columns from `column` on, `high` the other ones.
struct Store {
  Element* to;
  long stride;
  void operator()(long row, long column, Vector low, Vector high) const {
    Isa::store(to + row * stride + column, low);
    Isa::store(to + row * stride + column + LANES, high);
  }
};

struct StoreFloat {
  float* to;
  long stride;
  void operator()(long row, long column, Vector low, Vector high) const {
    Isa::store(to + row * stride + column, low);
    Isa::store(to + row * stride + column + LANES, high);
  }
};

struct Add {  // to the residual stream
  float* to;
  long stride;
  void operator()(long row, long column, Vector low, Vector high) const {
    float* place = to + row * stride + column;
    Isa::store(place, Isa::add(Isa::load(place), low));
    Isa::store(place + LANES, Isa::add(Isa::load(place + LANES), high));
  }
};

struct AddGated {  // rows of one expert to the residual rows that they came from
  float* to;
  long stride;
  const int32_t* rows;
  const float* gates;
  void operator()(long row, long column, Vector low, Vector high) const {
    float* place = to + rows[row] * stride + column;
    const Vector gate = Isa::all(gates[row]);
    Isa::store(place, Isa::fma(gate, low, Isa::load(place)));
    Isa::store(place + LANES, Isa::fma(gate, high, Isa::load(place + LANES)));
  }
};

struct SwiGlu {  // panels hold LANES gates, then the LANES values that belong to them
  Element* to;
  long stride;
  void operator()(long row, long column, Vector gate, Vector value) const {
    Isa::store(to + row * stride + column / 2, Isa::mul(silu(gate), value));
  }
};

struct StoreOver {  // divided by a number for each row
  Element* to;
  long stride;
  const float* divisors;
  void operator()(long row, long column, Vector low, Vector high) const {
    const Vector scale = Isa::all(1.0f / divisors[row]);
    Isa::store(to + row * stride + column, Isa::mul(low, scale));
    Isa::store(to + row * stride + column + LANES, Isa::mul(high, scale));
  }
};

template <int ROWS, class Result>
inline void tile(const Element* rows, long stride, const Element* panel, long k, long row, long column,
                 const Result& result) {
  Vector low[ROWS], high[ROWS];
#pragma GCC unroll 12
  for (int r = 0; r < ROWS; ++r) low[r] = high[r] = Isa::zero();
  for (long p = 0; p < k; p += PAIR, panel += 2 * FACTOR) {
    const auto left = Isa::factor(panel), right = Isa::factor(panel + FACTOR);
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; ++r) {
      const auto pair = Isa::broadcast(rows + r * stride + p);
      low[r] = Isa::multiply(low[r], pair, left);
      high[r] = Isa::multiply(high[r], pair, right);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < ROWS; ++r) result(row + r, column, low[r], high[r]);
}

// The same for a number of rows that is known at run time only, up to TILE_ROWS.
template <int ROWS = TILE_ROWS, class Result>
inline void tile_of(long count, const Element* rows, long stride, const Element* panel, long k, long row, long column,
                    const Result& result) {
  if (count == ROWS) return tile<ROWS>(rows, stride, panel, k, row, column, result);
  if constexpr (ROWS > 1) return tile_of<ROWS - 1>(count, rows, stride, panel, k, row, column, result);
}

// Rows [m, k] with `stride` between them times packed [k, n], n in whole panels. A panel stays in the first cache
// while all rows pass. Tiles are evened out: 13 rows of at most 12 become 7 and 6.
template <class Result>
inline void product(const Element* rows, long stride, long m, const Element* packed, long k, long n,
                    const Result& result) {
  const long tiles = (m + TILE_ROWS - 1) / TILE_ROWS;
  for (long column = 0; column < n; column += PANEL)
    for (long t = 0; t < tiles; ++t) {
      const long from = m * t / tiles, to = m * (t + 1) / tiles;
      tile_of(to - from, rows + from * stride, stride, packed + column * k, k, from, column, result);
    }
}

}  // namespace onerec
