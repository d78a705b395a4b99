// The feed-forward branch of a residual stream: norm, product, SwiGLU, product; forward and backward.
#pragma once

#include "branch.h"
#include "swiglu.h"

namespace onerec {

// Rows of the stream; `hidden` is in whole vectors, the width in whole panels.
struct FeedForward {
  Stream stream;
  int64_t hidden;
  const float *w_in, *w_out;  // [2 * hidden, width], gates first; [width, hidden]
  uint16_t* gated;            // what SwiGLU gets, chunk by chunk: [panel][row][PANEL], LANES gates and their values
  uint16_t* out;              // [rows, width]

  int64_t rows() const { return stream.norm.rows; }
  int64_t width() const { return stream.norm.width; }
  Weight in_weight() const { return {w_in, 2 * hidden, width(), {hidden}, {0}}; }
  Weight out_weight() const { return {w_out, width(), hidden, {0}, {0}}; }
};

inline Floats widened(const uint16_t* from) { return load(reinterpret_cast<const Bf16*>(from)); }

// SwiGLU of a panel of products, LANES gates and their values: both are kept as bfloat16, and these are activated.
// A loop of its own: what is computed beside the sums of a tile would push them out of the registers.
inline void activate(const float* panel, int64_t count, uint16_t* gated, uint16_t* to, int64_t stride) {
  for (int64_t row = 0; row < count; ++row, panel += PANEL, gated += PANEL, to += stride) {
    narrow_to(gated, load(panel));
    narrow_to(gated + LANES, load(panel + LANES));
    const Floats gate = widened(gated), value = widened(gated + LANES);
    narrow_to(to, gate * sigmoid(gate) * value);
  }
}

// Gradients of what is activated, LANES of each row, to those of gates and values; and what was activated again.
inline void activate_backward(const float* flows, int64_t count, const uint16_t* gated, uint16_t* grads,
                              uint16_t* activated, int64_t hidden) {
  for (int64_t row = 0; row < count; ++row, gated += PANEL) {
    const Floats gate = widened(gated), value = widened(gated + LANES);
    const Floats flow = (Floats)_mm512_slli_epi32(narrowed(load(flows + row * PANEL)), 16);
    const Floats share = sigmoid(gate), silu = gate * share;
    uint16_t* to = grads + row * 2 * hidden;
    narrow_to(to, flow * value * (share + silu * (1.0f - share)));
    narrow_to(to + LANES, flow * silu);
    narrow_to(activated + row * hidden, silu * value);
  }
}

// What a panel's gradients are activated with comes from memory while they are multiplied.
inline void fetch(const uint16_t* gated, int64_t count) {
  for (int64_t at = 0; at < count; at += PANEL) _mm_prefetch(reinterpret_cast<const char*>(gated + at), _MM_HINT_T0);
}

// Rows that SwiGLU got, on the way back: `gated` [panel][row][PANEL] as the forward kept it, gradients [.., 2 * hidden]
// and what is activated again [.., hidden], and where both are packed for the gradients of weights, from `pair` on.
struct GatedRows {
  int64_t count, hidden;
  const uint16_t* gated;
  uint16_t *grads, *activated;
  TokenPanels grad_tokens, activated_tokens;
  int64_t pair;
};

// Panel of hidden columns from `column` on; multiply() puts gradients of what is activated into `flows` [.., PANEL].
template <class Multiply>
void gated_backward(const GatedRows& rows, int64_t column, const float* flows, const Multiply& multiply) {
  const int64_t hidden = rows.hidden, columns = std::min(PANEL, hidden - column);
  const uint16_t* gated = rows.gated + 2 * column * rows.count;
  fetch(gated, 2 * columns * rows.count);
  multiply();
  for (int64_t half = 0; half < columns; half += LANES) {
    const int64_t at = 2 * (column + half);
    activate_backward(flows + half, rows.count, gated + 2 * half * rows.count, rows.grads + at,
                      rows.activated + column + half, hidden);
    pack_panel(Rows{rows.grads, 2 * hidden}, rows.count, 2 * hidden, rows.grad_tokens, rows.pair, at / PANEL);
  }
  pack_panel(Rows{rows.activated, hidden}, rows.count, hidden, rows.activated_tokens, rows.pair, column / PANEL);
}

// Memory of a thread for the rows of a chunk.
class FeedForwardChunk {
 public:
  FeedForwardChunk(int64_t width, int64_t hidden)
      : memory_(CHUNK_ROWS * (width / 2 + hidden / 2 + hidden + width + PANEL)),
        normed(memory_.take<uint16_t>(CHUNK_ROWS * width / 2)),
        activated(memory_.take<uint16_t>(CHUNK_ROWS * hidden / 2)),
        gated(memory_.take<uint16_t>(CHUNK_ROWS * hidden)),
        flows(memory_.take<float>(CHUNK_ROWS * width)),
        panel(memory_.take<float>(CHUNK_ROWS * PANEL)) {}

 private:
  Scratch memory_;

 public:
  uint16_t *const normed, *const activated, *const gated;
  float *const flows, *const panel;
};

inline void feed_forward(const FeedForward& given, int64_t threads) {
  const Weight in = given.in_weight(), out = given.out_weight();
  const int64_t rows = given.rows(), width = given.width(), hidden = given.hidden;
  Scratch weights(in.forward_words() + out.forward_words());
  uint32_t* gated_panels = weights.take<uint32_t>(in.forward_words());
  uint32_t* out_panels = weights.take<uint32_t>(out.forward_words());
  pack_forward(in, gated_panels, threads);
  pack_forward(out, out_panels, threads);
  const int64_t chunks = (rows + CHUNK_ROWS - 1) / CHUNK_ROWS;
  const auto begin = [&] { return FeedForwardChunk(width, hidden); };
  in_turn(chunks, 1, CHUNK_ROWS * hidden, threads, begin, [&](FeedForwardChunk& with, int64_t chunk, int64_t) {
    const int64_t row = chunk * CHUNK_ROWS, count = std::min(CHUNK_ROWS, rows - row);
    norm_rows(given.stream, row, count, with.normed);
    for (int64_t column = 0; column < 2 * hidden; column += PANEL) {
      product(Rows{with.normed, width}.pairs(0), count, gated_panels + column * width / 2, width / 2, PANEL,
              StoreFloat{with.panel, PANEL});
      activate(with.panel, count, given.gated + row * 2 * hidden + column * count, with.activated + column / 2, hidden);
    }
    product(Rows{with.activated, hidden}.pairs(0), count, out_panels, hidden / 2, width,
            Store{{given.out + row * width, width}});
  });
}

struct FeedForwardGradients {
  StreamGradients stream;
  float *w_in, *w_out;
};

// The way back of one call: weights, and rows packed for their gradients, as many chunks at once as `together`.
class FeedForwardBackward {
 public:
  FeedForwardBackward(const FeedForward& given, const FeedForwardGradients& to, int64_t threads)
      : given_(given), to_(to), threads_(threads), rows_(given.rows()), width_(given.width()), hidden_(given.hidden),
        in_(given.in_weight()), out_(given.out_weight()), chunks_((rows_ + CHUNK_ROWS - 1) / CHUNK_ROWS),
        together_(std::min(chunks_, GRADIENT_ROWS / CHUNK_ROWS)), pairs_(together_ * CHUNK_ROWS / 2), scratch_(words()),
        in_weights_(scratch_.take<uint32_t>(in_.backward_words())),
        out_weights_(scratch_.take<uint32_t>(out_.backward_words())), normed_(take_groups(scratch_, pairs_, width_)),
        grads_(take_groups(scratch_, pairs_, width_)), gated_(take_panels(scratch_, pairs_, 2 * hidden_)),
        activated_(take_panels(scratch_, pairs_, hidden_)), gain_sums_(scratch_.take<float>(chunks_ * width_)),
        gradients_{{{normed_, gated_, to.w_in, in_, true}, scratch_.take<float>(width_ * in_panels(2 * hidden_))},
                   {{grads_, activated_, to.w_out, out_, false}, scratch_.take<float>(width_ * in_panels(hidden_))}} {
    pack_backward(in_, in_weights_, threads);
    pack_backward(out_, out_weights_, threads);
  }

  void run() {
    const auto begin = [&] { return FeedForwardChunk(width_, hidden_); };
    for (int64_t from = 0; from < chunks_; from += together_) {
      const int64_t some = std::min(together_, chunks_ - from);
      in_turn(some, 1, CHUNK_ROWS * hidden_, threads_, begin, [&](FeedForwardChunk& with, int64_t chunk, int64_t) {
        chunk_back(from + chunk, chunk * CHUNK_ROWS / 2, with);
      });
      const int64_t packed = (std::min(rows_, (from + some) * CHUNK_ROWS) - from * CHUNK_ROWS + 1) / 2;
      add_turn(gradients_, {packed, packed}, from == 0, from + some == chunks_, threads_);
    }
    sum_blocks(gain_sums_, chunks_, width_, to_.stream.grad_gain);
  }

 private:
  int64_t words() const {
    return in_.backward_words() + out_.backward_words() + 2 * TokenGroups::words(pairs_, width_) +
           TokenPanels::words(pairs_, 2 * hidden_) + TokenPanels::words(pairs_, hidden_) + chunks_ * width_ +
           width_ * (in_panels(2 * hidden_) + in_panels(hidden_));
  }

  // The chunk's pairs begin at `pair`.
  void chunk_back(int64_t chunk, int64_t pair, FeedForwardChunk& with) const {
    const Norm& norm = given_.stream.norm;
    const int64_t row = chunk * CHUNK_ROWS, count = std::min(CHUNK_ROWS, rows_ - row);
    const Rows grad{const_cast<uint16_t*>(to_.stream.grad) + row * width_, width_};
    const GatedRows gated{count,          hidden_, given_.gated + row * 2 * hidden_, with.gated,
                          with.activated, gated_,  activated_,                       pair};
    for (int64_t column = 0; column < hidden_; column += PANEL)
      gated_backward(gated, column, with.panel, [&] {
        product(grad.pairs(0), count, out_weights_ + column * width_ / 2, width_ / 2, PANEL,
                StoreFloat{with.panel, PANEL});
      });
    product(Rows{with.gated, 2 * hidden_}.pairs(0), count, in_weights_, hidden_, width_,
            StoreFloat{with.flows, width_});
    norm_rows_again(norm, row, count, with.normed);
    norm_rows_backward(norm, to_.stream, row, count, with.flows, gain_sums_ + chunk * width_);
    pack_tokens(grad, count, grads_, pair);
    pack_tokens(Rows{with.normed, width_}, count, normed_, pair);
  }

  const FeedForward& given_;
  const FeedForwardGradients& to_;
  const int64_t threads_, rows_, width_, hidden_;
  const Weight in_, out_;
  const int64_t chunks_, together_, pairs_;
  Scratch scratch_;
  uint32_t *const in_weights_, *const out_weights_;
  const TokenGroups normed_, grads_;
  const TokenPanels gated_, activated_;
  float* const gain_sums_;
  const TurnedOver gradients_[2];
};

inline void feed_forward_backward(const FeedForward& given, const FeedForwardGradients& to, int64_t threads) {
  FeedForwardBackward(given, to, threads).run();
}

}  // namespace onerec
