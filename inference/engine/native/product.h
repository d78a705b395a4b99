// Products of rows with packed weights, and what is done with each tile of results.
//
// A packed matrix [k, n] is cut into panels of 2 * LANES columns; a panel holds, for each PAIR of rows of the matrix,
// the pairs of its columns one after the other: [n / PANEL][k / PAIR][PANEL][PAIR]. One multiply-accumulate then takes
// a pair of one row of inputs and the pairs of LANES columns. A tile is TILE_ROWS rows by PANEL columns, whose sums
// fill most of the registers.
//
// Where elements are integers, each row is divided by a scale that brings its largest element to LARGEST, and each
// column by one small enough that no sum of products can leave 32 bits. A panel then ends in its columns' scales and,
// where rows are stored CENTRE higher, in what sums begin at.
#pragma once
#include <algorithm>
#include <type_traits>

#include "isa.h"
#include "model.h"

namespace onerec {

template <class By = Isa>
constexpr long PANEL_END = By::SCALED ? PANEL * (By::CENTRE ? 2 : 1) * sizeof(float) / sizeof(typename By::Element) : 0;

template <class By = Isa>
inline long panel_elements(long k) {
  return k * PANEL + PANEL_END<By>;
}
template <class By = Isa>
inline long packed_elements(long k, long n) {
  return n / PANEL * panel_elements<By>(k);
}

// Rows to multiply: elements with `stride` between rows, and a scale for each where elements are integers.
template <class By>
struct RowsOf {
  const typename By::Element* data;
  long stride;
  const float* scales;

  RowsOf from(long row, long column = 0) const {
    return {data + row * stride + column, stride, By::SCALED ? scales + row : nullptr};
  }
};
using Rows = RowsOf<Isa>;
using Queries = RowsOf<Recalling>;

template <class Activation>  // float or Kept
inline Vector loaded(const Activation* from) {
  if constexpr (std::is_same_v<Activation, float>)
    return Isa::load(from);
  else
    return Keeping::widen(from);
}

// A row times `factor`, as elements. Returns its scale.
template <class By = Isa, class Activation>
inline float narrow_row(const Activation* row, long columns, float factor, typename By::Element* to) {
  float scale = 1.0f;
  if constexpr (By::SCALED) {
    Vector most = Isa::zero();
    for (long c = 0; c < columns; c += LANES) {
      const Vector x = loaded(row + c);
      most = Isa::max(most, Isa::max(x, Isa::sub(Isa::zero(), x)));
    }
    const float largest = std::max(Isa::most(most), 1e-30f);
    scale = largest * factor / By::LARGEST;
    factor = By::LARGEST / largest;
  }
  for (long c = 0; c < columns; c += LANES) By::store(to + c, Isa::mul(Isa::all(factor), loaded(row + c)));
  return scale;
}

// Kept activations [rows, columns] as rows to multiply.
template <class By = Isa>
inline RowsOf<By> multipliable(const Kept* from, long stride, long rows, long columns, Arena& arena) {
  if constexpr (By::SCALED) {
    auto* to = arena.take<typename By::Element>(rows * columns);
    float* scales = arena.take<float>(rows);
    for (long row = 0; row < rows; ++row)
      scales[row] = narrow_row<By>(from + row * stride, columns, 1.0f, to + row * columns);
    return {to, columns, scales};
  } else {
    return {from, stride, nullptr};
  }
}

template <class By, class ElementAt>
inline float column_scale(long k, long column, const ElementAt& element) {
  float most = 0.0f, sum = 0.0f;
  for (long row = 0; row < k; ++row) {
    const float size = std::fabs(element(row, column));
    most = std::max(most, size);
    sum += size;
  }
  return By::fitting_scale(most, sum, k, By::LARGEST);
}

// One panel of integers from column `from` on; `to` has room for it.
template <class By, class ElementAt>
inline void pack_integers(long k, long from, const ElementAt& element, typename By::Element* to) {
  float scales[PANEL];
  int32_t begin[PANEL] = {};
  for (long i = 0; i < PANEL; ++i) scales[i] = column_scale<By>(k, from + i, element);
  for (long row = 0; row < k; row += By::PAIR)
    for (long i = 0; i < PANEL; ++i)
      for (int r = 0; r < By::PAIR; ++r) {
        const auto whole = static_cast<typename By::Element>(std::lrint(element(row + r, from + i) / scales[i]));
        begin[i] -= By::CENTRE * whole;
        *to++ = whole;
      }
  std::memcpy(to, scales, sizeof scales);
  if constexpr (By::CENTRE != 0) std::memcpy(to + sizeof scales / sizeof *to, begin, sizeof begin);
}

// A matrix [k, n] whose element (row, column) is element(row, column), packed; n in whole panels.
template <class By = Isa, class ElementAt>
inline void pack(long k, long n, const ElementAt& element, typename By::Element* to) {
  for (long from = 0; from < n; from += PANEL, to += panel_elements<By>(k)) {
    if constexpr (By::SCALED) {
      pack_integers<By>(k, from, element, to);
    } else {
      auto* place = to;
      for (long row = 0; row < k; row += By::PAIR)
        for (long column = from; column < from + PANEL; ++column)
          for (int i = 0; i < By::PAIR; ++i) *place++ = element(row + i, column);
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

// What sums of a panel's half begin at.
template <class By>
inline typename By::Sum beginning(const typename By::Element* panel, long k, long half) {
  if constexpr (By::CENTRE == 0)
    return By::nothing();
  else
    return By::factor(panel + k * PANEL + (PANEL + half) * sizeof(float) / sizeof(typename By::Element));
}

// The panel that comes next is fetched beside: where few rows pass, its way from the third cache is what takes time.
template <int ROWS, class By, class Result>
inline void tile(const RowsOf<By>& rows, const typename By::Element* panel, long k, long row, long column,
                 const Result& result) {
  constexpr int FACTOR = LANES * By::PAIR;  // elements of a Factor
  typename By::Sum low[ROWS], high[ROWS];
  const auto first = beginning<By>(panel, k, 0), second = beginning<By>(panel, k, LANES);
#pragma GCC unroll 12
  for (int r = 0; r < ROWS; ++r) low[r] = first, high[r] = second;
  for (long p = 0; p < k; p += By::PAIR, panel += 2 * FACTOR) {
    const auto left = By::factor(panel), right = By::factor(panel + FACTOR);
    fetch_soon<2 * FACTOR>(panel + panel_elements<By>(k));
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; ++r) {
      const auto pair = By::broadcast(rows.data + r * rows.stride + p);
      low[r] = By::multiply(low[r], pair, left);
      high[r] = By::multiply(high[r], pair, right);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < ROWS; ++r) {
    Vector one = By::total(low[r]), other = By::total(high[r]);
    if constexpr (By::SCALED) {
      const float* scales = reinterpret_cast<const float*>(panel);
      const Vector own = Isa::all(rows.scales[r]);
      one = Isa::mul(one, Isa::mul(own, Isa::load(scales)));
      other = Isa::mul(other, Isa::mul(own, Isa::load(scales + LANES)));
    }
    result(row + r, column, one, other);
  }
}

// The same for a number of rows that is known at run time only, up to TILE_ROWS.
template <int ROWS = TILE_ROWS, class By, class Result>
inline void tile_of(long count, const RowsOf<By>& rows, const typename By::Element* panel, long k, long row,
                    long column, const Result& result) {
  if (count == ROWS) return tile<ROWS>(rows, panel, k, row, column, result);
  if constexpr (ROWS > 1) return tile_of<ROWS - 1>(count, rows, panel, k, row, column, result);
}

// Rows [m, k] times packed [k, n], n in whole panels. A panel stays in the first cache while all rows pass. Tiles are
// evened out: 13 rows of at most 12 become 7 and 6.
template <class By, class Result>
inline void product_by_vectors(const RowsOf<By>& rows, long m, const typename By::Element* packed, long k, long n,
                               const Result& result) {
  const long tiles = (m + TILE_ROWS - 1) / TILE_ROWS;
  for (long column = 0; column < n; column += PANEL, packed += panel_elements<By>(k))
    for (long t = 0; t < tiles; ++t) {
      const long from = m * t / tiles, to = m * (t + 1) / tiles;
      tile_of(to - from, rows.from(from), packed, k, from, column, result);
    }
}

}  // namespace onerec
