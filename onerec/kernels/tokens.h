// Tokens as the gradients of weights take them, which are products over tokens.
//
// Tokens are packed in pairs of rows: those of one factor in panels of columns, those of the other one in groups of as
// many columns as a tile has rows.
#pragma once

#include "packed.h"

namespace onerec {

constexpr int64_t BLOCK_PAIRS = 192;  // of rows, that pass through a panel at once
constexpr int64_t RUN_PANELS = 4;     // of a weight's gradient, that a thread adds to at once

// Tokens [2 * pairs, columns] in pairs, as panels: [block][panel][pair][PANEL].
struct TokenPanels {
  uint32_t* data;
  int64_t panels;

  static int64_t words(int64_t pairs, int64_t columns) {
    return (pairs + BLOCK_PAIRS - 1) / BLOCK_PAIRS * BLOCK_PAIRS * in_panels(columns);
  }

  uint32_t* at(int64_t pair, int64_t panel) const {
    return data + ((pair / BLOCK_PAIRS * panels + panel) * BLOCK_PAIRS + pair % BLOCK_PAIRS) * PANEL;
  }
};

// The same as groups of at most TILE_ROWS columns: [block][group][pair][TILE_ROWS].
struct TokenGroups {
  uint32_t* data;
  int64_t columns, groups;

  static int64_t count(int64_t columns) { return (columns + TILE_ROWS - 1) / TILE_ROWS; }

  static int64_t words(int64_t pairs, int64_t columns) {
    return (pairs + BLOCK_PAIRS - 1) / BLOCK_PAIRS * BLOCK_PAIRS * count(columns) * TILE_ROWS;
  }

  int64_t first(int64_t group) const { return columns * group / groups; }

  uint32_t* at(int64_t pair, int64_t group) const {
    return data + ((pair / BLOCK_PAIRS * groups + group) * BLOCK_PAIRS + pair % BLOCK_PAIRS) * TILE_ROWS;
  }
};

inline TokenPanels take_panels(Scratch& from, int64_t pairs, int64_t columns) {
  return {from.take<uint32_t>(TokenPanels::words(pairs, columns)), in_panels(columns) / PANEL};
}

inline TokenGroups take_groups(Scratch& from, int64_t pairs, int64_t columns) {
  return {from.take<uint32_t>(TokenGroups::words(pairs, columns)), columns, TokenGroups::count(columns)};
}

// Rows 2 * pair and 2 * pair + 1 of `count` rows; zeros behind the last one.
struct PairOfRows {
  const uint16_t* rows[2];

  PairOfRows(const Rows& from, int64_t count, int64_t pair) {
    rows[0] = from.data + 2 * pair * from.stride;
    rows[1] = 2 * pair + 1 < count ? rows[0] + from.stride : nullptr;
  }

  __m512i at(int64_t column) const {
    const auto half = [&](const uint16_t* row) {
      return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + column)));
    };
    return rows[1] ? paired(half(rows[0]), half(rows[1])) : half(rows[0]);
  }

  // The first `count` of LANES columns, and zeros.
  __m512i some(int64_t column, int64_t count) const {
    const auto half = [&](const uint16_t* row) {
      return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes_to(count), row + column));
    };
    return rows[1] ? paired(half(rows[0]), half(rows[1])) : half(rows[0]);
  }
};

// Panel `panel` of `count` rows of `columns` columns, the first of which is one of pair `first`.
inline void pack_panel(const Rows& from, int64_t count, int64_t columns, const TokenPanels& to, int64_t first,
                       int64_t panel) {
  const int64_t column = panel * PANEL, left = columns - column;
  for (int64_t pair = 0; 2 * pair < count; ++pair) {
    const PairOfRows both(from, count, pair);
    uint32_t* place = to.at(first + pair, panel);
    _mm512_storeu_si512(place, both.at(column));
    _mm512_storeu_si512(place + LANES, left >= PANEL ? both.at(column + LANES) : _mm512_setzero_si512());
  }
}

// `columns` are whole vectors. One panel after the other: what is written lies side by side.
inline void pack_tokens(const Rows& from, int64_t count, int64_t columns, const TokenPanels& to, int64_t first) {
  for (int64_t panel = 0; panel < to.panels; ++panel) pack_panel(from, count, columns, to, first, panel);
}

// A group takes what stands behind its columns along, up to TILE_ROWS; nothing is stored under a mask, which is slow.
inline void pack_tokens(const Rows& from, int64_t count, const TokenGroups& to, int64_t first) {
  for (int64_t group = 0; group < to.groups; ++group) {
    const int64_t column = to.first(group), left = to.columns - column;
    for (int64_t pair = 0; 2 * pair < count; ++pair) {
      const PairOfRows both(from, count, pair);
      const __m512i own = left >= LANES ? both.at(column) : both.some(column, left);
      uint32_t* place = to.at(first + pair, group);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(place), _mm512_castsi512_si256(own));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(place + 8), _mm512_extracti32x4_epi32(own, 2));
    }
  }
}

struct AddFloat {
  float* to;
  int64_t stride;
  void operator()(int64_t row, int64_t column, Floats low, Floats high) const {
    float* place = to + row * stride + column;
    store(place, load(place) + low);
    store(place + LANES, load(place + LANES) + high);
  }
};

// The gradient of a weight over packed tokens: [groups' columns, panels' columns].
struct WeightGradient {
  TokenGroups groups;
  TokenPanels panels;
  float* to;  // the gradient as the weight lies
  Weight weight;
  bool turned;  // whether the weight's rows are the panels' columns

  int64_t panel_words() const { return groups.columns * PANEL; }
};

// Adds `count` pairs from `first` on to the sums [groups' columns, PANEL] of a panel, which have been begun or not.
inline void add_tokens(const WeightGradient& gradient, int64_t panel, int64_t first, int64_t count, bool begins,
                       float* sums) {
  const TokenGroups& groups = gradient.groups;
  const uint32_t* tokens = gradient.panels.at(first, panel);
  for (int64_t group = 0; group < groups.groups; ++group) {
    const int64_t column = groups.first(group), columns = groups.first(group + 1) - column;
    const Pairs own{groups.at(first, group), 1, TILE_ROWS};
    float* to = sums + column * PANEL;
    if (begins) {
      tile_of(columns, own, tokens, count, 0, 0, StoreFloat{to, PANEL});
    } else {
      tile_of(columns, own, tokens, count, 0, 0, AddFloat{to, PANEL});
    }
  }
}

// The same for panels `from` to `until`, whose sums lie side by side, over pairs `first` to `last`, block by block.
inline void add_blocks(const WeightGradient& gradient, int64_t from, int64_t until, int64_t first, int64_t last,
                       bool begins, float* sums) {
  for (int64_t pair = first; pair < last;) {
    const int64_t next = std::min(last, (pair / BLOCK_PAIRS + 1) * BLOCK_PAIRS);
    for (int64_t panel = from; panel < until; ++panel)
      add_tokens(gradient, panel, pair, next - pair, begins && pair == first,
                 sums + (panel - from) * gradient.panel_words());
    pair = next;
  }
}

// Sums of a panel to where the weight has them.
inline void write_gradient(const WeightGradient& gradient, int64_t panel, const float* sums) {
  const Weight& weight = gradient.weight;
  for (int64_t half = 0; half < PANEL; half += LANES)
    for (int64_t row = 0; row < gradient.groups.columns; row += LANES) {
      const int64_t place = panel * PANEL + half, rows = std::min(LANES, gradient.groups.columns - row);
      __m512i block[LANES];
      for (int64_t lane = 0; lane < LANES; ++lane)
        block[lane] = lane < rows ? _mm512_loadu_si512(sums + (row + lane) * PANEL + half) : _mm512_setzero_si512();
      if (gradient.turned) {
        transpose(block);
        for (int64_t lane = 0; lane < std::min(LANES, weight.rows - place); ++lane)
          _mm512_mask_storeu_epi32(gradient.to + weight.row.of(place + lane) * weight.columns + row, lanes_to(rows),
                                   block[lane]);
      } else {
        const __mmask16 there = lanes_to(weight.columns - place);
        for (int64_t lane = 0; lane < rows; ++lane)
          _mm512_mask_storeu_epi32(gradient.to + (row + lane) * weight.columns + weight.column.of(place), there,
                                   block[lane]);
      }
    }
}

// One of several weights whose gradients are summed up in turns, each of which packs its tokens anew.
struct TurnedOver {
  WeightGradient gradient;
  float* sums;  // of all panels
};

// Adds the pairs of a turn, of each weight its own number; the panels of all are dealt out to threads.
template <int64_t COUNT>
void add_turn(const TurnedOver (&weights)[COUNT], const int64_t (&pairs)[COUNT], bool begins, bool ends,
              int64_t threads) {
  int64_t panels = 0, work = 0;
  for (int64_t w = 0; w < COUNT; ++w) {
    panels += weights[w].gradient.panels.panels;
    work += weights[w].gradient.panels.panels * weights[w].gradient.panel_words() * pairs[w];
  }
  in_turn(panels, RUN_PANELS, work / panels, threads, [&](int64_t first, int64_t last) {
    int64_t before = 0;
    for (int64_t w = 0; w < COUNT; ++w) {
      const WeightGradient& gradient = weights[w].gradient;
      const int64_t own = gradient.panels.panels, words = gradient.panel_words();
      const int64_t from = std::clamp(first - before, int64_t{0}, own);
      const int64_t until = std::clamp(last - before, int64_t{0}, own);
      before += own;
      add_blocks(gradient, from, until, 0, pairs[w], begins, weights[w].sums + from * words);
      if (ends)
        for (int64_t panel = from; panel < until; ++panel)
          write_gradient(gradient, panel, weights[w].sums + panel * words);
    }
  });
}

}  // namespace onerec
