// Products of rows with packed weights, and what is done with each tile of results.
//
// A packed matrix [k, n] is cut into panels of 2 * LANES columns; a panel holds, for each PAIR of rows of the matrix,
// the pairs of its columns one after the other: [n / PANEL][k / PAIR][PANEL][PAIR]. One multiply-accumulate then takes
// a pair of one row of inputs and the pairs of LANES columns. A tile is TILE_ROWS rows by PANEL columns, whose sums
// fill most of the registers.
//
// Where elements are integers, each row is divided by a scale that brings its largest element to LARGEST, and each
// column by one small enough that no sum of products can leave 32 bits. A panel then ends in its columns' scales.
#pragma once
#include <algorithm>

#include "isa.h"
#include "model.h"

namespace onerec {

constexpr float LARGEST = 4095.0f;  // of a row of integers
constexpr long SCALE_ELEMENTS = SCALED ? PANEL * sizeof(float) / sizeof(Element) : 0;  // of a panel

inline long panel_elements(long k) { return k * PANEL + SCALE_ELEMENTS; }
inline long packed_elements(long k, long n) { return n / PANEL * panel_elements(k); }

// Rows to multiply: elements with `stride` between rows, and a scale for each where elements are integers.
struct Rows {
  const Element* data;
  long stride;
  const float* scales;

  Rows from(long row, long column = 0) const {
    return {data + row * stride + column, stride, SCALED ? scales + row : nullptr};
  }
};

// A float32 row times `factor`, as elements. Returns its scale.
inline float narrow_row(const float* row, long columns, float factor, Element* to) {
  float scale = 1.0f;
  if constexpr (SCALED) {
    Vector most = Isa::zero();
    for (long c = 0; c < columns; c += LANES) {
      const Vector x = Isa::load(row + c);
      most = Isa::max(most, Isa::max(x, Isa::sub(Isa::zero(), x)));
    }
    const float largest = std::max(Isa::most(most), 1e-30f);
    scale = largest * factor / LARGEST;
    factor = LARGEST / largest;
  }
  for (long c = 0; c < columns; c += LANES) Isa::store(to + c, Isa::mul(Isa::all(factor), Isa::load(row + c)));
  return scale;
}

// Kept activations [rows, columns] as rows to multiply.
template <class Activation>  // Kept
inline Rows multipliable(const Activation* from, long stride, long rows, long columns, Arena& arena) {
  if constexpr (SCALED) {
    Element* to = arena.take<Element>(rows * columns);
    float* scales = arena.take<float>(rows);
    for (long row = 0; row < rows; ++row)
      scales[row] = narrow_row(from + row * stride, columns, 1.0f, to + row * columns);
    return {to, columns, scales};
  } else {
    return {from, stride, nullptr};
  }
}

// The scale of a column of k elements, the largest of which is `most` and which add up to `sum` without signs: they fit
// 16 bits, and times a row of no more than `row_most` their sum fits 32.
inline float fitting_scale(float most, float sum, long k, float row_most) {
  const float room = 2.1e9f / row_most - 0.5f * k;  // rounding adds half a unit a row at most
  return std::max({most / 32767.0f, sum / room, 1e-30f});
}

template <class ElementAt>
inline float column_scale(long k, long column, float row_most, const ElementAt& element) {
  float most = 0.0f, sum = 0.0f;
  for (long row = 0; row < k; ++row) {
    const float size = std::fabs(element(row, column));
    most = std::max(most, size);
    sum += size;
  }
  return fitting_scale(most, sum, k, row_most);
}

// A matrix [k, n] whose element (row, column) is element(row, column), packed; n in whole panels.
template <class ElementAt>
inline void pack(long k, long n, const ElementAt& element, Element* to, float row_most = LARGEST) {
  for (long from = 0; from < n; from += PANEL) {
    [[maybe_unused]] float scales[PANEL];
    if constexpr (SCALED)
      for (long i = 0; i < PANEL; ++i) scales[i] = column_scale(k, from + i, row_most, element);
    for (long row = 0; row < k; row += PAIR)
      for (long column = from; column < from + PANEL; ++column)
        for (int i = 0; i < PAIR; ++i) {
          if constexpr (SCALED)
            *to++ = static_cast<Element>(std::lrint(element(row + i, column) / scales[column - from]));
          else
            *to++ = element(row + i, column);
        }
    if constexpr (SCALED) {
      std::memcpy(to, scales, sizeof scales);
      to += SCALE_ELEMENTS;
    }
  }
}

// What becomes of a tile's row: `low` are the first LANES columns from `column` on, `high` the other ones.
struct Store {
  Kept* to;
  long stride;
  void operator()(long row, long column, Vector low, Vector high) const {
    Keeping::store(to + row * stride + column, low);
    Keeping::store(to + row * stride + column + LANES, high);
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

struct StoreRows {  // row i to row rows[i]
  float* to;
  long stride;
  const int32_t* rows;
  void operator()(long row, long column, Vector low, Vector high) const {
    Isa::store(to + rows[row] * stride + column, low);
    Isa::store(to + rows[row] * stride + column + LANES, high);
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
  Kept* to;
  long stride;
  void operator()(long row, long column, Vector gate, Vector value) const {
    Keeping::store(to + row * stride + column / 2, Isa::mul(silu(gate), value));
  }
};

struct StoreOver {  // divided by a number for each row
  Kept* to;
  long stride;
  const float* divisors;
  void operator()(long row, long column, Vector low, Vector high) const {
    const Vector scale = Isa::all(1.0f / divisors[row]);
    Keeping::store(to + row * stride + column, Isa::mul(low, scale));
    Keeping::store(to + row * stride + column + LANES, Isa::mul(high, scale));
  }
};

// The panel that comes next is fetched beside: where few rows pass, its way from the third cache is what takes time.
template <int ROWS, class Result>
inline void tile(const Rows& rows, const Element* panel, long k, long row, long column, const Result& result) {
  Isa::Sum low[ROWS], high[ROWS];
#pragma GCC unroll 12
  for (int r = 0; r < ROWS; ++r) low[r] = high[r] = Isa::nothing();
  for (long p = 0; p < k; p += PAIR, panel += 2 * FACTOR) {
    const auto left = Isa::factor(panel), right = Isa::factor(panel + FACTOR);
    fetch_soon<2 * FACTOR>(panel + panel_elements(k));
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; ++r) {
      const auto pair = Isa::broadcast(rows.data + r * rows.stride + p);
      low[r] = Isa::multiply(low[r], pair, left);
      high[r] = Isa::multiply(high[r], pair, right);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < ROWS; ++r) {
    Vector one = Isa::total(low[r]), other = Isa::total(high[r]);
    if constexpr (SCALED) {
      const float* scales = reinterpret_cast<const float*>(panel);
      const Vector own = Isa::all(rows.scales[r]);
      one = Isa::mul(one, Isa::mul(own, Isa::load(scales)));
      other = Isa::mul(other, Isa::mul(own, Isa::load(scales + LANES)));
    }
    result(row + r, column, one, other);
  }
}

// The same for a number of rows that is known at run time only, up to TILE_ROWS.
template <int ROWS = TILE_ROWS, class Result>
inline void tile_of(long count, const Rows& rows, const Element* panel, long k, long row, long column,
                    const Result& result) {
  if (count == ROWS) return tile<ROWS>(rows, panel, k, row, column, result);
  if constexpr (ROWS > 1) return tile_of<ROWS - 1>(count, rows, panel, k, row, column, result);
}

// Rows [m, k] times packed [k, n], n in whole panels. A panel stays in the first cache while all rows pass. Tiles are
// evened out: 13 rows of at most 12 become 7 and 6.
template <class Result>
inline void product_by_vectors(const Rows& rows, long m, const Element* packed, long k, long n, const Result& result) {
  const long tiles = (m + TILE_ROWS - 1) / TILE_ROWS;
  for (long column = 0; column < n; column += PANEL, packed += panel_elements(k))
    for (long t = 0; t < tiles; ++t) {
      const long from = m * t / tiles, to = m * (t + 1) / tiles;
      tile_of(to - from, rows.from(from), packed, k, from, column, result);
    }
}

}  // namespace onerec
