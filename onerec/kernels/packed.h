// Weights as products take them: float32, rounded to bfloat16 where they are packed.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>

#include "pairs.h"
#include "team.h"

namespace onerec {

// Memory of one call, or of one thread in it.
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

// Places of rows or columns in the order in which they are packed: as they stand, or 16 of the first half and the 16 of
// the second half that belong to them in turn.
struct Order {
  int64_t half;  // how many a half has; 0 where they are packed as they stand

  int64_t of(int64_t place) const {
    if (!half) return place;
    return place / PANEL * LANES + place % LANES + (place / LANES % 2 ? half : 0);
  }
};

// A weight [rows, columns] of a linear layer: [out, in]. What lies as [in, out] is multiplied the other way round.
struct Weight {
  const float* data;
  int64_t rows, columns;
  Order row, column;

  const float* at(int64_t row_place, int64_t column_place) const {
    return data + row.of(row_place) * columns + column.of(column_place);
  }

  // The product with tokens [.., columns] has in_panels(rows) columns, that with gradients in_panels(columns).
  int64_t forward_words() const { return in_panels(rows) * columns / 2; }
  int64_t backward_words() const { return rows / 2 * in_panels(columns); }
};

inline __mmask16 lanes_to(int64_t left) { return left >= LANES ? 0xffff : left > 0 ? (1 << left) - 1 : 0; }

// Panel `panel` of the forward: its columns are rows of the weight, its steps pairs of a row's neighbouring elements.
inline void pack_forward(const Weight& weight, int64_t panel, uint32_t* to) {
  const int64_t steps = weight.columns / 2;
  for (int64_t half = 0; half < PANEL; half += LANES)
    for (int64_t step = 0; step < steps; step += LANES) {
      __m512i block[LANES];
      const int64_t at = 2 * step, left = weight.columns - at;
      for (int64_t lane = 0; lane < LANES; ++lane) {
        const int64_t place = panel * PANEL + half + lane;
        const bool there = place < weight.rows;
        const Floats low = _mm512_maskz_loadu_ps(there ? lanes_to(left) : 0, weight.at(place, at));
        const Floats high = _mm512_maskz_loadu_ps(there ? lanes_to(left - LANES) : 0, weight.at(place, at + LANES));
        block[lane] = (__m512i)_mm512_cvtne2ps_pbh(high, low);
      }
      transpose(block);
      for (int64_t lane = 0; lane < std::min(LANES, steps - step); ++lane)
        _mm512_storeu_si512(to + (step + lane) * PANEL + half, block[lane]);
    }
}

// Panel `panel` of the backward: its columns are columns of the weight, its steps pairs of rows.
inline void pack_backward(const Weight& weight, int64_t panel, uint32_t* to) {
  for (int64_t row = 0; row < weight.rows; row += 2)
    for (int64_t column = panel * PANEL; column < (panel + 1) * PANEL; column += LANES, to += LANES) {
      const __mmask16 there = lanes_to(weight.columns - column);
      const auto half = [&](int64_t place) {
        return narrowed(_mm512_maskz_loadu_ps(there, weight.at(place, column)));
      };
      _mm512_storeu_si512(to, paired(half(row), half(row + 1)));
    }
}

// Weights are packed side by side, panel by panel.
inline void pack_forward(const Weight& weight, uint32_t* to, int64_t threads) {
  const int64_t panels = in_panels(weight.rows) / PANEL, words = weight.columns / 2 * PANEL;
  each_part(panels, words, threads, [&](int64_t first, int64_t last) {
    for (int64_t panel = first; panel < last; ++panel) pack_forward(weight, panel, to + panel * words);
  });
}

inline void pack_backward(const Weight& weight, uint32_t* to, int64_t threads) {
  const int64_t panels = in_panels(weight.columns) / PANEL, words = weight.rows / 2 * PANEL;
  each_part(panels, words, threads, [&](int64_t first, int64_t last) {
    for (int64_t panel = first; panel < last; ++panel) pack_backward(weight, panel, to + panel * words);
  });
}

}  // namespace onerec
