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

// What a panel's gradients are activated with comes from memory while they are multiplied.
inline void fetch(const uint16_t* gated, int64_t count) {
  for (int64_t at = 0; at < count; at += PANEL) _mm_prefetch(reinterpret_cast<const char*>(gated + at), _MM_HINT_T0);
}

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

// Rows on their way back, packed for the gradients of the weights.
struct FeedForwardTokens {
  TokenGroups normed, grad;
  TokenPanels gated, activated;
};

inline void feed_forward_backward(const FeedForward& given, const FeedForwardGradients& to, int64_t threads) {
  const Weight in = given.in_weight(), out = given.out_weight();
  const Norm& norm = given.stream.norm;
  const int64_t rows = given.rows(), width = given.width(), hidden = given.hidden;
  const int64_t chunks = (rows + CHUNK_ROWS - 1) / CHUNK_ROWS, together = GRADIENT_ROWS / CHUNK_ROWS;
  const int64_t pairs = std::min(chunks, together) * CHUNK_ROWS / 2;
  const int64_t groups = TokenGroups::count(width), in_words = TokenPanels::words(pairs, 2 * hidden),
                out_words = TokenPanels::words(pairs, hidden), token_words = TokenGroups::words(pairs, width);
  const int64_t in_sums = width * in_panels(2 * hidden), out_sums = width * in_panels(hidden);
  Scratch memory(in.backward_words() + out.backward_words() + in_words + out_words + 2 * token_words + in_sums +
                 out_sums + chunks * width);
  uint32_t* in_weights = memory.take<uint32_t>(in.backward_words());
  uint32_t* out_weights = memory.take<uint32_t>(out.backward_words());
  const FeedForwardTokens tokens{{memory.take<uint32_t>(token_words), width, groups},
                                 {memory.take<uint32_t>(token_words), width, groups},
                                 {memory.take<uint32_t>(in_words), in_panels(2 * hidden) / PANEL},
                                 {memory.take<uint32_t>(out_words), in_panels(hidden) / PANEL}};
  const TurnedOver gradients[2] = {
      {{tokens.normed, tokens.gated, to.w_in, in, true}, memory.take<float>(in_sums)},
      {{tokens.grad, tokens.activated, to.w_out, out, false}, memory.take<float>(out_sums)}};
  float* gain_sums = memory.take<float>(chunks * width);
  pack_backward(in, in_weights, threads);
  pack_backward(out, out_weights, threads);
  const auto chunk_back = [&](int64_t chunk, int64_t before, FeedForwardChunk& with) {
    const int64_t row = chunk * CHUNK_ROWS, count = std::min(CHUNK_ROWS, rows - row), pair = before / 2;
    const Rows grad{const_cast<uint16_t*>(to.stream.grad) + row * width, width};
    for (int64_t column = 0; column < hidden; column += PANEL) {
      fetch(given.gated + row * 2 * hidden + 2 * column * count, std::min(PANEL, hidden - column) * 2 * count);
      product(grad.pairs(0), count, out_weights + column * width / 2, width / 2, PANEL, StoreFloat{with.panel, PANEL});
      for (int64_t half = 0; half < std::min(PANEL, hidden - column); half += LANES) {
        const int64_t at = 2 * (column + half);
        activate_backward(with.panel + half, count, given.gated + row * 2 * hidden + at * count, with.gated + at,
                          with.activated + column + half, hidden);
        pack_panel(Rows{with.gated, 2 * hidden}, count, 2 * hidden, tokens.gated, pair, at / PANEL);
      }
      pack_panel(Rows{with.activated, hidden}, count, hidden, tokens.activated, pair, column / PANEL);
    }
    product(Rows{with.gated, 2 * hidden}.pairs(0), count, in_weights, hidden, width, StoreFloat{with.flows, width});
    norm_rows_again(norm, row, count, with.normed);
    norm_rows_backward(norm, to.stream, row, count, with.flows, gain_sums + chunk * width);
    pack_tokens(grad, count, tokens.grad, pair);
    pack_tokens(Rows{with.normed, width}, count, tokens.normed, pair);
  };
  const auto begin = [&] { return FeedForwardChunk(width, hidden); };
  for (int64_t from = 0; from < chunks; from += together) {
    const int64_t some = std::min(together, chunks - from);
    in_turn(some, 1, CHUNK_ROWS * hidden, threads, begin, [&](FeedForwardChunk& with, int64_t chunk, int64_t) {
      chunk_back(from + chunk, chunk * CHUNK_ROWS, with);
    });
    const int64_t packed = (std::min(rows, (from + some) * CHUNK_ROWS) - from * CHUNK_ROWS + 1) / 2;
    add_turn(gradients, {packed, packed}, from == 0, from + some == chunks, threads);
  }
  sum_blocks(gain_sums, chunks, width, to.stream.grad_gain);
}

}  // namespace onerec
