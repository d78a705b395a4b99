// Products by AMX: a block of 32 rows by a panel's 32 columns at a time, in four tiles of sums.
//
// A packed panel is what a tile of right factors wants: 16 rows of pairs, 16 columns wide, two of them side by side.
// Sums go to memory and from there, row by row, to what is done with them. A row's sums do not depend on the other
// rows of its block, so an answer does not depend on the batch.
#pragma once
#include <vector>

#include "product.h"

namespace onerec {

constexpr long BLOCK = 32;           // rows; also elements of k that one step multiplies
constexpr long TILE_SIDE = 16;       // rows of a tile, and floats of one of its rows
constexpr int PAIR = Isa::PAIR;
constexpr long PAIRS_BYTES = PANEL * PAIR * sizeof(Element);  // of one row of pairs of a panel

// Tiles belong to a thread, are shaped before use and given back.
class Tiles {
 public:
  Tiles() {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } shapes;
    for (int tile = 0; tile < 8; ++tile) shapes.row_bytes[tile] = 64, shapes.rows[tile] = TILE_SIDE;
    _tile_loadconfig(&shapes);
  }
  ~Tiles() { _tile_release(); }
  Tiles(const Tiles&) = delete;
};

// What was written before is in memory: tile loads do not tell the compiler what they read.
inline void written() { asm volatile("" ::: "memory"); }

// Sums of one step; the lower half of the block only where it has rows.
template <bool BOTH>
inline void step(const Element* rows, long stride, const Element* pairs) {
  _tile_loadd(6, pairs, PAIRS_BYTES);
  _tile_loadd(7, pairs + TILE_SIDE * PAIR, PAIRS_BYTES);
  _tile_loadd(4, rows, stride * sizeof(Element));
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(1, 4, 7);
  if constexpr (BOTH) {
    _tile_loadd(5, rows + TILE_SIDE * stride, stride * sizeof(Element));
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
}

// Sums [32, PANEL] of a block: `whole` elements of k where they lie, and the ends with zeros up to BLOCK, if any.
template <bool BOTH>
inline void block_sums(const Element* rows, long stride, const Element* panel, long whole, const Element* row_ends,
                       const Element* panel_end, float* sums) {
  _tile_zero(0);
  _tile_zero(1);
  if constexpr (BOTH) {
    _tile_zero(2);
    _tile_zero(3);
  }
  for (long p = 0; p < whole; p += BLOCK) step<BOTH>(rows + p, stride, panel + p * PANEL);
  if (row_ends != nullptr) step<BOTH>(row_ends, BLOCK, panel_end);
  _tile_stored(0, sums, PANEL * sizeof(float));
  _tile_stored(1, sums + TILE_SIDE, PANEL * sizeof(float));
  if constexpr (BOTH) {
    _tile_stored(2, sums + TILE_SIDE * PANEL, PANEL * sizeof(float));
    _tile_stored(3, sums + TILE_SIDE * PANEL + TILE_SIDE, PANEL * sizeof(float));
  }
}

// Copies [rows, columns] of `from` into [to_rows, to_columns], zeros around them.
inline Element* framed(const Rows& from, long rows, long columns, long to_rows, long to_columns,
                       std::vector<Element>& to) {
  to.assign(to_rows * to_columns, 0);
  for (long row = 0; row < rows; ++row)
    std::memcpy(to.data() + row * to_columns, from.data + row * from.stride, columns * sizeof(Element));
  return to.data();
}

// As `product`, on a thread that has Tiles.
template <class Result>
inline void product_by_tiles(const Rows& rows, long m, const Element* packed, long k, long n, const Result& result) {
  static thread_local std::vector<Element> last_rows, ends;
  const long whole = k / BLOCK * BLOCK, blocks = (m + BLOCK - 1) / BLOCK, full = m / BLOCK;
  // Tiles are read whole: the rows of the last block and the end of k are copied, with zeros.
  const Element* last =
      full == blocks ? nullptr : framed(rows.from(full * BLOCK), m - full * BLOCK, whole, BLOCK, whole, last_rows);
  const Element* row_ends =
      whole == k ? nullptr : framed(rows.from(0, whole), m, k - whole, blocks * BLOCK, BLOCK, ends);
  alignas(64) Element panel_end[BLOCK * PANEL] = {};
  alignas(64) float sums[BLOCK * PANEL];
  for (long column = 0; column < n; column += PANEL, packed += panel_elements(k)) {
    std::memcpy(panel_end, packed + whole * PANEL, (k - whole) * PANEL * sizeof(Element));
    written();
    for (long block = 0; block < blocks; ++block) {
      const long from = block * BLOCK, count = std::min(BLOCK, m - from);
      const Element* block_rows = block == full ? last : rows.data + from * rows.stride;
      const long stride = block == full ? whole : rows.stride;
      const Element* block_ends = row_ends == nullptr ? nullptr : row_ends + from * BLOCK;
      if (count > TILE_SIDE)
        block_sums<true>(block_rows, stride, packed, whole, block_ends, panel_end, sums);
      else
        block_sums<false>(block_rows, stride, packed, whole, block_ends, panel_end, sums);
      for (long r = 0; r < count; ++r)
        result(from + r, column, Isa::load(sums + r * PANEL), Isa::load(sums + r * PANEL + LANES));
    }
  }
}

}  // namespace onerec
