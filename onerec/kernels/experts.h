// The sparse experts of a layer: rows are sorted by expert, pass through their expert's SwiGLU while they are in the
// cache, and are mixed by their gates; forward and backward. A weight is read once for its expert's rows, and packed
// panel by panel where it is used: with few rows for each expert its way from memory is what takes time.
#pragma once

#include <vector>

#include "feed_forward.h"

namespace onerec {

constexpr int64_t PART_ROWS = 240;  // of one expert, that a thread takes through it at once

struct Experts {
  int64_t rows, width, hidden, experts, active;
  const uint16_t* x;      // [rows, width]
  const float* gates;     // [rows, active]
  const int64_t* chosen;  // [rows, active]
  const float *w_in, *w_out;  // [experts, width, 2 * hidden], gates of SwiGLU first; [experts, hidden, width]
  int64_t* load;          // [experts]: rows of each
  int64_t *source, *slots;  // [rows * active]: which row stands in a slot; the slots of each row. Sorted by expert
  uint16_t* gated;        // [slots, 2 * hidden], part by part as chunks of FeedForward
  uint16_t* outputs;      // [slots, width]
  float* mixed;           // [rows, width]

  int64_t slot_count() const { return rows * active; }
  Weight in_weight(int64_t e) const { return {w_in + e * width * 2 * hidden, width, 2 * hidden, {0}, {hidden}}; }
  Weight out_weight(int64_t e) const { return {w_out + e * hidden * width, hidden, width, {0}, {0}}; }
};

// Some slots of an expert; `pair` is where their pairs begin.
struct Part {
  int64_t expert, first, count, pair;
};

// All parts, expert by expert, and behind which pair each expert ends.
struct Parts {
  std::vector<Part> all;
  std::vector<int64_t> ends;

  explicit Parts(const Experts& given) {
    int64_t slot = 0, pair = 0;
    for (int64_t expert = 0; expert < given.experts; ++expert) {
      const int64_t load = given.load[expert], parts = (load + PART_ROWS - 1) / PART_ROWS;
      for (int64_t part = 0; part < parts; ++part) {
        const int64_t first = load * part / parts, count = load * (part + 1) / parts - first;
        all.push_back({expert, slot + first, count, pair});
        pair += (count + 1) / 2;
      }
      slot += load;
      ends.push_back(pair);
    }
  }

  int64_t count() const { return static_cast<int64_t>(all.size()); }
  int64_t begin_of(int64_t expert) const { return expert ? ends[expert - 1] : 0; }
};

// Slots by expert, in the order of their rows.
inline void sort_by_expert(const Experts& given) {
  std::vector<int64_t> next(given.experts + 1, 0);
  for (int64_t at = 0; at < given.slot_count(); ++at) ++next[given.chosen[at] + 1];
  for (int64_t expert = 0; expert < given.experts; ++expert) {
    given.load[expert] = next[expert + 1];
    next[expert + 1] += next[expert];
  }
  for (int64_t at = 0; at < given.slot_count(); ++at) {
    const int64_t slot = next[given.chosen[at]]++;
    given.source[slot] = at;
    given.slots[at] = slot;
  }
}

// Memory of a thread for the rows of a part.
class PartScratch {
 public:
  PartScratch(int64_t width, int64_t hidden)
      : memory_(PART_ROWS * (width + hidden / 2 + hidden + PANEL) + PANEL * std::max(width, 2 * hidden) / 2),
        rows(memory_.take<uint16_t>(PART_ROWS * width / 2)),
        grads(memory_.take<uint16_t>(PART_ROWS * width / 2)),
        activated(memory_.take<uint16_t>(PART_ROWS * hidden / 2)),
        gated(memory_.take<uint16_t>(PART_ROWS * hidden)),
        products(memory_.take<float>(PART_ROWS * PANEL)),
        panel(memory_.take<uint32_t>(PANEL * std::max(width, 2 * hidden) / 2)) {}

 private:
  Scratch memory_;

 public:
  uint16_t *const rows, *const grads, *const activated, *const gated;
  float* const products;
  uint32_t* const panel;
};

// The rows of a part, side by side.
inline void gather(const Experts& given, const Part& part, uint16_t* to) {
  for (int64_t slot = part.first; slot < part.first + part.count; ++slot, to += given.width)
    std::memcpy(to, given.x + given.source[slot] / given.active * given.width, given.width * sizeof(uint16_t));
}

inline void part_forward(const Experts& given, const Part& part, PartScratch& with) {
  const int64_t width = given.width, hidden = given.hidden, count = part.count;
  const Weight in = given.in_weight(part.expert), out = given.out_weight(part.expert);
  uint16_t* gated = given.gated + part.first * 2 * hidden;
  gather(given, part, with.rows);
  for (int64_t column = 0; column < 2 * hidden; column += PANEL) {
    pack_backward(in, column / PANEL, with.panel);
    product(Rows{with.rows, width}.pairs(0), count, with.panel, width / 2, PANEL, StoreFloat{with.products, PANEL});
    activate(with.products, count, gated + column * count, with.activated + column / 2, hidden);
  }
  for (int64_t column = 0; column < width; column += PANEL) {
    pack_backward(out, column / PANEL, with.panel);
    product(Rows{with.activated, hidden}.pairs(0), count, with.panel, hidden / 2, PANEL,
            Store{{given.outputs + part.first * width + column, width}});
  }
}

inline void experts_forward(const Experts& given, int64_t threads) {
  const int64_t width = given.width, hidden = given.hidden;
  sort_by_expert(given);
  const Parts parts(given);
  const auto begin = [&] { return PartScratch(width, hidden); };
  in_turn(parts.count(), 1, given.slot_count() * hidden / std::max(int64_t{1}, parts.count()), threads, begin,
          [&](PartScratch& with, int64_t part, int64_t) { part_forward(given, parts.all[part], with); });
  each_part(given.rows, given.active * width, threads, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row)
      for (int64_t at = 0; at < width; at += LANES) {
        Floats mixed = all(0.0f);
        for (int64_t k = 0; k < given.active; ++k) {
          const int64_t place = row * given.active + k;
          mixed += given.gates[place] * widened(given.outputs + given.slots[place] * width + at);
        }
        store(given.mixed + row * width + at, mixed);
      }
  });
}

struct ExpertsGradients {
  const float* grad;  // [rows, width]: of what is mixed
  uint16_t* x;        // [rows, width]
  float* gates;       // [rows, active]
  float *w_in, *w_out;
};

// Slots on their way back, packed for the gradients of the weights.
struct ExpertsTokens {
  TokenGroups rows, grads;
  TokenPanels gated, activated;
};

// `to` [slots, width] are the gradients of the rows as they stand in the slots.
inline void part_backward(const Experts& given, const Part& part, const float* grads, const ExpertsTokens& tokens,
                          uint16_t* to, PartScratch& with) {
  const int64_t width = given.width, hidden = given.hidden, count = part.count;
  const Weight in = given.in_weight(part.expert), out = given.out_weight(part.expert);
  gather(given, part, with.rows);
  for (int64_t row = 0; row < count; ++row) {
    const int64_t place = given.source[part.first + row];
    const float* grad = grads + place / given.active * width;
    for (int64_t at = 0; at < width; at += LANES)
      narrow_to(with.grads + row * width + at, load(grad + at) * given.gates[place]);
  }
  const Rows flows{with.grads, width};
  const GatedRows back{count,          hidden,       given.gated + part.first * 2 * hidden, with.gated,
                       with.activated, tokens.gated, tokens.activated,                      part.pair};
  for (int64_t column = 0; column < hidden; column += PANEL)
    gated_backward(back, column, with.products, [&] {
      pack_forward(out, column / PANEL, with.panel);
      product(flows.pairs(0), count, with.panel, width / 2, PANEL, StoreFloat{with.products, PANEL});
    });
  for (int64_t column = 0; column < width; column += PANEL) {
    pack_forward(in, column / PANEL, with.panel);
    product(Rows{with.gated, 2 * hidden}.pairs(0), count, with.panel, hidden, PANEL,
            Store{{to + part.first * width + column, width}});
  }
  pack_tokens(Rows{with.rows, width}, count, tokens.rows, part.pair);
  pack_tokens(flows, count, tokens.grads, part.pair);
}

// What flows back to a row from its slots, and to its gates from what the slots gave out.
inline void rows_backward(const Experts& given, const ExpertsGradients& to, const uint16_t* slots, int64_t first,
                          int64_t last) {
  const int64_t width = given.width, active = given.active;
  for (int64_t row = first; row < last; ++row) {
    for (int64_t k = 0; k < active; ++k) {
      const uint16_t* output = given.outputs + given.slots[row * active + k] * width;
      Floats along = all(0.0f);
      for (int64_t at = 0; at < width; at += LANES) along += load(to.grad + row * width + at) * widened(output + at);
      to.gates[row * active + k] = sum(along);
    }
    for (int64_t at = 0; at < width; at += LANES) {
      Floats total = all(0.0f);
      for (int64_t k = 0; k < active; ++k) total += widened(slots + given.slots[row * active + k] * width + at);
      narrow_to(to.x + row * width + at, total);
    }
  }
}

// Gradients of the weights of all experts, panel by panel.
inline void weights_backward(const Experts& given, const Parts& parts, const ExpertsTokens& tokens,
                             const ExpertsGradients& to, int64_t threads) {
  const int64_t width = given.width, hidden = given.hidden;
  const int64_t in_count = tokens.gated.panels, out_count = tokens.activated.panels, each = in_count + out_count;
  in_turn(given.experts * each, RUN_PANELS, given.slot_count() * width * PANEL / given.experts, threads,
          [&](int64_t first, int64_t last) {
            Scratch memory(width * PANEL);
            float* sums = memory.take<float>(width * PANEL);
            for (int64_t at = first; at < last; ++at) {
              const int64_t expert = at / each, panel = at % each, pair = parts.begin_of(expert);
              const bool is_in = panel < in_count;
              const WeightGradient gradient =
                  is_in ? WeightGradient{tokens.rows, tokens.gated, to.w_in + expert * width * 2 * hidden,
                                         given.in_weight(expert), false}
                        : WeightGradient{tokens.grads, tokens.activated, to.w_out + expert * hidden * width,
                                         given.out_weight(expert), true};
              const int64_t own = is_in ? panel : panel - in_count;
              if (!given.load[expert]) std::fill_n(sums, gradient.panel_words(), 0.0f);
              add_blocks(gradient, own, own + 1, pair, parts.ends[expert], true, sums);
              write_gradient(gradient, own, sums);
            }
          });
}

inline void experts_backward(const Experts& given, const ExpertsGradients& to, int64_t threads) {
  const int64_t width = given.width, hidden = given.hidden;
  const Parts parts(given);
  const int64_t pairs = parts.ends.back();
  Scratch memory(2 * TokenGroups::words(pairs, width) + TokenPanels::words(pairs, 2 * hidden) +
                 TokenPanels::words(pairs, hidden) + given.slot_count() * width / 2);
  const ExpertsTokens tokens{take_groups(memory, pairs, width), take_groups(memory, pairs, width),
                             take_panels(memory, pairs, 2 * hidden), take_panels(memory, pairs, hidden)};
  uint16_t* slots = memory.take<uint16_t>(given.slot_count() * width / 2);
  const auto begin = [&] { return PartScratch(width, hidden); };
  in_turn(parts.count(), 1, given.slot_count() * hidden / std::max(int64_t{1}, parts.count()), threads, begin,
          [&](PartScratch& with, int64_t part, int64_t) {
            part_backward(given, parts.all[part], to.grad, tokens, slots, with);
          });
  weights_backward(given, parts, tokens, to, threads);
  each_part(given.rows, given.active * width, threads,
            [&](int64_t first, int64_t last) { rows_backward(given, to, slots, first, last); });
}

}  // namespace onerec
