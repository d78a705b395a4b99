// The attention branch of a residual stream: norm, projections, attention, product; forward and backward. Keys and
// values are the stream's own, or those of a memory beside it.
#pragma once

#include "attention.h"
#include "branch.h"

namespace onerec {

constexpr int64_t UNIT_ROWS = 96;  // short samples pass together, so that weights are read less often

// Rows of the stream are those of samples, one after the other; `attention` points into what is projected.
struct AttentionBranch {
  Stream stream;
  Attention attention;
  const float* w_own;             // [own, width]: queries, keys and values, or queries alone
  const float* w_memory;          // [2 * width, width], or null
  const float* w_out;             // [width, width]
  const uint16_t* memory;         // [batch * keys, width], or null
  uint16_t* projected;            // [rows, own]
  uint16_t* memory_projected;     // [batch * keys, 2 * width], or null
  uint16_t *attended, *out;       // [rows, width]

  int64_t width() const { return stream.norm.width; }
  int64_t own() const { return (memory ? 1 : 3) * width(); }
  int64_t samples() const { return attention.scores.batch; }
  int64_t queries() const { return attention.scores.queries; }
  int64_t keys() const { return attention.scores.keys; }
  Weight own_weight() const { return {w_own, own(), width(), {0}, {0}}; }
  Weight memory_weight() const { return {w_memory, memory ? 2 * width() : 0, width(), {0}, {0}}; }
  Weight out_weight() const { return {w_out, width(), width(), {0}, {0}}; }
};

// Samples that pass together, however many threads there are.
struct Units {
  int64_t samples, each;

  explicit Units(const AttentionBranch& given)
      : samples(given.samples()),
        each(std::max(int64_t{1}, UNIT_ROWS / std::max(given.queries(), given.memory ? given.keys() : 0))) {}

  int64_t count() const { return (samples + each - 1) / each; }
  int64_t first(int64_t unit) const { return unit * each; }
  int64_t of(int64_t unit) const { return std::min(each, samples - first(unit)); }
};

// Rows of something of [.., columns] from `row` on.
inline Rows rows_from(const uint16_t* data, int64_t row, int64_t columns) {
  return {const_cast<uint16_t*>(data) + row * columns, columns};
}

// Memory of a thread for the rows of a unit.
class AttendingUnit {
 public:
  AttendingUnit(const AttentionBranch& given, int64_t each)
      : memory_(each * given.queries() * given.width() / 2),
        normed(memory_.take<uint16_t>(each * given.queries() * given.width() / 2)),
        attending(given.attention) {}

 private:
  Scratch memory_;

 public:
  uint16_t* const normed;
  AttendingScratch attending;
};

inline void attention_branch(const AttentionBranch& given, int64_t threads) {
  const Weight own = given.own_weight(), out = given.out_weight(), memory = given.memory_weight();
  const int64_t width = given.width(), queries = given.queries(), keys = given.keys();
  const int64_t heads = given.attention.scores.heads;
  Scratch weights(own.forward_words() + out.forward_words() + memory.forward_words());
  uint32_t* own_panels = weights.take<uint32_t>(own.forward_words());
  uint32_t* out_panels = weights.take<uint32_t>(out.forward_words());
  uint32_t* memory_panels = weights.take<uint32_t>(memory.forward_words());
  pack_forward(own, own_panels, threads);
  pack_forward(out, out_panels, threads);
  pack_forward(memory, memory_panels, threads);
  const Units units(given);
  const auto begin = [&] { return AttendingUnit(given, units.each); };
  const auto pass = [&](AttendingUnit& with, int64_t unit, int64_t) {
    const int64_t sample = units.first(unit), row = sample * queries, count = units.of(unit) * queries;
    norm_rows(given.stream, row, count, with.normed);
    product(Rows{with.normed, width}.pairs(0), count, own_panels, width / 2, own.rows,
            Store{rows_from(given.projected, row, own.rows)});
    if (given.memory)
      product(rows_from(given.memory, sample * keys, width).pairs(0), units.of(unit) * keys, memory_panels, width / 2,
              memory.rows, Store{rows_from(given.memory_projected, sample * keys, memory.rows)});
    for (int64_t at = sample * heads; at < (sample + units.of(unit)) * heads; ++at) {
      const Heads attended{given.attended, width};
      attend(given.attention, at, attended.of(at / heads, at % heads, queries, given.attention.width), with.attending);
    }
    product(rows_from(given.attended, row, width).pairs(0), count, out_panels, width / 2, width,
            Store{rows_from(given.out, row, width)});
  };
  in_turn(units.count(), 1, units.each * queries * width, threads, begin, pass);
}

struct AttentionBranchGradients {
  StreamGradients stream;
  float *w_own, *w_memory, *w_out;
  uint16_t* memory;  // [batch * keys, width], or null
};

// The same of the backward.
class BackwardUnit {
 public:
  BackwardUnit(const AttentionBranch& given, int64_t each)
      : rows_(each * given.queries()), keys_(given.memory ? each * given.keys() : 0),
        memory_(rows_ * (given.width() * 2 + given.own() / 2) + keys_ * given.width()),
        normed(memory_.take<uint16_t>(rows_ * given.width() / 2)),
        attended(memory_.take<uint16_t>(rows_ * given.width() / 2)),
        projected(memory_.take<uint16_t>(rows_ * given.own() / 2)),
        memory_projected(memory_.take<uint16_t>(keys_ * given.width())),
        flows(memory_.take<float>(rows_ * given.width())),
        backward(given.attention) {}

 private:
  const int64_t rows_, keys_;
  Scratch memory_;

 public:
  uint16_t *const normed, *const attended, *const projected, *const memory_projected;  // gradients, but for the first
  float* const flows;
  BackwardScratch backward;
};

// One sample's heads, the first row of which is `row` of the unit's.
inline void heads_backward(const AttentionBranch& given, int64_t sample, int64_t place, BackwardUnit& with) {
  const Attention& attention = given.attention;
  const int64_t width = given.width(), own = given.own(), heads = attention.scores.heads;
  for (int64_t head = 0; head < heads; ++head) {
    const int64_t at = head * attention.width;
    const Rows mine = rows_from(with.projected, place * given.queries(), own);
    const Rows theirs = given.memory ? rows_from(with.memory_projected, place * given.keys(), 2 * width)
                                     : Rows{mine.data + width, own};
    const HeadGradients grads{{with.attended + place * given.queries() * width + at, width},
                              {mine.data + at, own},
                              {theirs.data + at, theirs.stride},
                              {theirs.data + width + at, theirs.stride}};
    attend_backward(attention, sample * heads + head, grads, with.backward);
  }
}

inline void attention_branch_backward(const AttentionBranch& given, const AttentionBranchGradients& to,
                                      int64_t threads) {
  const Weight own = given.own_weight(), out = given.out_weight(), memory_weight = given.memory_weight();
  const Norm& norm = given.stream.norm;
  const int64_t width = given.width(), queries = given.queries(), keys = given.memory ? given.keys() : 0;
  const Units units(given);
  const int64_t rows = units.each * queries, memory_rows = units.each * keys;
  const int64_t together = std::min(units.count(), std::max(int64_t{1}, GRADIENT_ROWS / std::max(rows, memory_rows)));
  const int64_t stride = (rows + 1) / 2, memory_stride = (memory_rows + 1) / 2, groups = TokenGroups::count(width);
  const int64_t pairs = together * stride, memory_pairs = together * memory_stride;
  const int64_t group_words = TokenGroups::words(pairs, width), own_words = TokenPanels::words(pairs, own.rows),
                out_words = TokenPanels::words(pairs, width), key_words = TokenGroups::words(memory_pairs, width),
                memory_words = TokenPanels::words(memory_pairs, memory_weight.rows);
  Scratch scratch(own.backward_words() + out.backward_words() + memory_weight.backward_words() + 2 * group_words +
                  own_words + out_words + key_words + memory_words +
                  width * (own.rows + width + memory_weight.rows) + units.count() * width);
  uint32_t* own_weights = scratch.take<uint32_t>(own.backward_words());
  uint32_t* out_weights = scratch.take<uint32_t>(out.backward_words());
  uint32_t* memory_weights = scratch.take<uint32_t>(memory_weight.backward_words());
  const TokenGroups normed{scratch.take<uint32_t>(group_words), width, groups},
      grads{scratch.take<uint32_t>(group_words), width, groups},
      memory{scratch.take<uint32_t>(key_words), width, groups};
  const TokenPanels projected{scratch.take<uint32_t>(own_words), own.rows / PANEL},
      attended{scratch.take<uint32_t>(out_words), width / PANEL},
      memory_projected{scratch.take<uint32_t>(memory_words), memory_weight.rows / PANEL};
  const TurnedOver gradients[3] = {
      {{normed, projected, to.w_own, own, true}, scratch.take<float>(width * own.rows)},
      {{grads, attended, to.w_out, out, false}, scratch.take<float>(width * width)},
      {{memory, memory_projected, to.w_memory, memory_weight, true}, scratch.take<float>(width * memory_weight.rows)}};
  float* gain_sums = scratch.take<float>(units.count() * width);
  pack_backward(own, own_weights, threads);
  pack_backward(out, out_weights, threads);
  pack_backward(memory_weight, memory_weights, threads);
  const auto unit_back = [&](int64_t unit, int64_t place, BackwardUnit& with) {
    const int64_t sample = units.first(unit), row = sample * queries, count = units.of(unit) * queries;
    const Rows grad = rows_from(to.stream.grad, row, width);
    product(grad.pairs(0), count, out_weights, width / 2, width, Store{{with.attended, width}});
    for (int64_t one = 0; one < units.of(unit); ++one) heads_backward(given, sample + one, one, with);
    product(Rows{with.projected, own.rows}.pairs(0), count, own_weights, own.rows / 2, width,
            StoreFloat{with.flows, width});
    norm_rows_again(norm, row, count, with.normed);
    norm_rows_backward(norm, to.stream, row, count, with.flows, gain_sums + unit * width);
    pack_tokens(grad, count, grads, place * stride);
    pack_tokens(Rows{with.normed, width}, count, normed, place * stride);
    pack_tokens(Rows{with.projected, own.rows}, count, own.rows, projected, place * stride);
    pack_tokens(rows_from(given.attended, row, width), count, width, attended, place * stride);
    if (!given.memory) return;
    const int64_t first = sample * keys, some = units.of(unit) * keys;
    const Rows theirs{with.memory_projected, memory_weight.rows};
    product(theirs.pairs(0), some, memory_weights, memory_weight.rows / 2, width,
            Store{rows_from(to.memory, first, width)});
    pack_tokens(rows_from(given.memory, first, width), some, memory, place * memory_stride);
    pack_tokens(theirs, some, memory_weight.rows, memory_projected, place * memory_stride);
  };
  const auto begin = [&] { return BackwardUnit(given, units.each); };
  for (int64_t from = 0; from < units.count(); from += together) {
    const int64_t some = std::min(together, units.count() - from), last_unit = from + some - 1;
    in_turn(some, 1, rows * width, threads, begin,
            [&](BackwardUnit& with, int64_t unit, int64_t) { unit_back(from + unit, unit, with); });
    const int64_t packed = (some - 1) * stride + (units.of(last_unit) * queries + 1) / 2;
    const int64_t memory_packed = (some - 1) * memory_stride + (units.of(last_unit) * keys + 1) / 2;
    add_turn(gradients, {packed, packed, memory_packed}, from == 0, last_unit + 1 == units.count(), threads);
  }
  sum_blocks(gain_sums, units.count(), width, to.stream.grad_gain);
}

}  // namespace onerec
