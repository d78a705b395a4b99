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

// One sample's heads; it is number `place` of the unit's samples.
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

// The way back of one call: weights, and rows packed for their gradients, as many units at once as `together`.
class AttentionBranchBackward {
 public:
  AttentionBranchBackward(const AttentionBranch& given, const AttentionBranchGradients& to, int64_t threads)
      : given_(given), to_(to), threads_(threads), width_(given.width()), queries_(given.queries()),
        keys_(given.memory ? given.keys() : 0), own_(given.own_weight()), out_(given.out_weight()),
        memory_(given.memory_weight()), units_(given), stride_((units_.each * queries_ + 1) / 2),
        key_stride_((units_.each * keys_ + 1) / 2),
        together_(std::clamp(GRADIENT_ROWS / (units_.each * std::max(queries_, keys_)), int64_t{1}, units_.count())),
        scratch_(words()), own_weights_(scratch_.take<uint32_t>(own_.backward_words())),
        out_weights_(scratch_.take<uint32_t>(out_.backward_words())),
        memory_weights_(scratch_.take<uint32_t>(memory_.backward_words())),
        normed_(take_groups(scratch_, together_ * stride_, width_)),
        grads_(take_groups(scratch_, together_ * stride_, width_)),
        keyed_(take_groups(scratch_, together_ * key_stride_, width_)),
        projected_(take_panels(scratch_, together_ * stride_, own_.rows)),
        attended_(take_panels(scratch_, together_ * stride_, width_)),
        memory_projected_(take_panels(scratch_, together_ * key_stride_, memory_.rows)),
        gain_sums_(scratch_.take<float>(units_.count() * width_)),
        gradients_{{{normed_, projected_, to.w_own, own_, true}, scratch_.take<float>(width_ * own_.rows)},
                   {{grads_, attended_, to.w_out, out_, false}, scratch_.take<float>(width_ * width_)},
                   {{keyed_, memory_projected_, to.w_memory, memory_, true},
                    scratch_.take<float>(width_ * memory_.rows)}} {
    pack_backward(own_, own_weights_, threads);
    pack_backward(out_, out_weights_, threads);
    pack_backward(memory_, memory_weights_, threads);
  }

  void run() {
    const auto begin = [&] { return BackwardUnit(given_, units_.each); };
    for (int64_t from = 0; from < units_.count(); from += together_) {
      const int64_t some = std::min(together_, units_.count() - from), last = from + some - 1;
      in_turn(some, 1, units_.each * queries_ * width_, threads_, begin, [&](BackwardUnit& with, int64_t at, int64_t) {
        stream_back(from + at, at * stride_, with);
        if (given_.memory) memory_back(from + at, at * key_stride_, with);
      });
      const int64_t packed = (some - 1) * stride_ + (units_.of(last) * queries_ + 1) / 2;
      const int64_t keys_packed = (some - 1) * key_stride_ + (units_.of(last) * keys_ + 1) / 2;
      add_turn(gradients_, {packed, packed, keys_packed}, from == 0, last + 1 == units_.count(), threads_);
    }
    sum_blocks(gain_sums_, units_.count(), width_, to_.stream.grad_gain);
  }

 private:
  int64_t words() const {
    const int64_t pairs = together_ * stride_, key_pairs = together_ * key_stride_;
    return own_.backward_words() + out_.backward_words() + memory_.backward_words() +
           2 * TokenGroups::words(pairs, width_) + TokenGroups::words(key_pairs, width_) +
           TokenPanels::words(pairs, own_.rows) + TokenPanels::words(pairs, width_) +
           TokenPanels::words(key_pairs, memory_.rows) + units_.count() * width_ +
           width_ * (own_.rows + width_ + memory_.rows);
  }

  // What flows through attention to the stream; the unit's pairs begin at `pair`.
  void stream_back(int64_t unit, int64_t pair, BackwardUnit& with) const {
    const Norm& norm = given_.stream.norm;
    const int64_t sample = units_.first(unit), row = sample * queries_, count = units_.of(unit) * queries_;
    const Rows grad = rows_from(to_.stream.grad, row, width_), projected{with.projected, own_.rows};
    product(grad.pairs(0), count, out_weights_, width_ / 2, width_, Store{{with.attended, width_}});
    for (int64_t one = 0; one < units_.of(unit); ++one) heads_backward(given_, sample + one, one, with);
    product(projected.pairs(0), count, own_weights_, own_.rows / 2, width_, StoreFloat{with.flows, width_});
    norm_rows_again(norm, row, count, with.normed);
    norm_rows_backward(norm, to_.stream, row, count, with.flows, gain_sums_ + unit * width_);
    pack_tokens(grad, count, grads_, pair);
    pack_tokens(Rows{with.normed, width_}, count, normed_, pair);
    pack_tokens(projected, count, own_.rows, projected_, pair);
    pack_tokens(rows_from(given_.attended, row, width_), count, width_, attended_, pair);
  }

  // And to the memory.
  void memory_back(int64_t unit, int64_t pair, const BackwardUnit& with) const {
    const int64_t row = units_.first(unit) * keys_, count = units_.of(unit) * keys_;
    const Rows projected{with.memory_projected, memory_.rows};
    product(projected.pairs(0), count, memory_weights_, memory_.rows / 2, width_,
            Store{rows_from(to_.memory, row, width_)});
    pack_tokens(rows_from(given_.memory, row, width_), count, keyed_, pair);
    pack_tokens(projected, count, memory_.rows, memory_projected_, pair);
  }

  const AttentionBranch& given_;
  const AttentionBranchGradients& to_;
  const int64_t threads_, width_, queries_, keys_;
  const Weight own_, out_, memory_;
  const Units units_;
  const int64_t stride_, key_stride_, together_;
  Scratch scratch_;
  uint32_t *const own_weights_, *const out_weights_, *const memory_weights_;
  const TokenGroups normed_, grads_, keyed_;
  const TokenPanels projected_, attended_, memory_projected_;
  float* const gain_sums_;
  const TurnedOver gradients_[3];
};

inline void attention_branch_backward(const AttentionBranch& given, const AttentionBranchGradients& to,
                                      int64_t threads) {
  AttentionBranchBackward(given, to, threads).run();
}

}  // namespace onerec
