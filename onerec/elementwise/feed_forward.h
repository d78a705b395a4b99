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
  uint16_t* gated;            // [rows, 2 * hidden]: what SwiGLU gets, LANES gates and their values in turn
  uint16_t* out;              // [rows, width]

  int64_t rows() const { return stream.norm.rows; }
  int64_t width() const { return stream.norm.width; }
  Weight in_weight() const { return {w_in, 2 * hidden, width(), {hidden}}; }
  Weight out_weight() const { return {w_out, width(), hidden, {0}}; }
};

inline Floats widened(const uint16_t* from) { return load(reinterpret_cast<const Bf16*>(from)); }

// Keeps gates and values as bfloat16, and activates what is kept.
struct Activate {
  uint16_t* gated;
  int64_t gated_stride;
  uint16_t* to;
  int64_t stride;
  void operator()(int64_t row, int64_t column, Floats gate, Floats value) const {
    uint16_t* kept = gated + row * gated_stride + column;
    narrow_to(kept, gate);
    narrow_to(kept + LANES, value);
    const Floats g = widened(kept), v = widened(kept + LANES);
    narrow_to(to + row * stride + column / 2, g * sigmoid(g) * v);
  }
};

// From the gradient of what is activated: that of gates and values, and what was activated again.
struct ActivateBackward {
  const uint16_t* gated;
  int64_t hidden;
  uint16_t *grads, *activated;  // [.., 2 * hidden] and [.., hidden]
  void some(int64_t row, int64_t column, Floats grad) const {
    const int64_t at = row * 2 * hidden + 2 * column;
    const Floats gate = widened(gated + at), value = widened(gated + at + LANES);
    const Floats flow = (Floats)_mm512_slli_epi32(narrowed(grad), 16), share = sigmoid(gate), silu = gate * share;
    narrow_to(grads + at, flow * value * (share + silu * (1.0f - share)));
    narrow_to(grads + at + LANES, flow * silu);
    narrow_to(activated + row * hidden + column, silu * value);
  }
  void operator()(int64_t row, int64_t column, Floats low, Floats high) const {
    some(row, column, low);
    if (column + LANES < hidden) some(row, column + LANES, high);
  }
};

inline void feed_forward(const FeedForward& given, int64_t threads) {
  const Weight in = given.in_weight(), out = given.out_weight();
  const int64_t rows = given.rows(), width = given.width(), hidden = given.hidden;
  Scratch weights(in.forward_words() + out.forward_words());
  uint32_t* in_panels_ = weights.take<uint32_t>(in.forward_words());
  uint32_t* out_panels = weights.take<uint32_t>(out.forward_words());
  pack_forward(in, in_panels_, threads);
  pack_forward(out, out_panels, threads);
  const int64_t chunks = (rows + CHUNK_ROWS - 1) / CHUNK_ROWS;
  each_part(chunks, CHUNK_ROWS * hidden, threads, [&](int64_t first, int64_t last) {
    Scratch scratch(CHUNK_ROWS * (width + hidden) / 2);
    uint16_t* normed = scratch.take<uint16_t>(CHUNK_ROWS * width / 2);
    uint16_t* activated = scratch.take<uint16_t>(CHUNK_ROWS * hidden / 2);
    for (int64_t chunk = first; chunk < last; ++chunk) {
      const int64_t row = chunk * CHUNK_ROWS, count = std::min(CHUNK_ROWS, rows - row);
      norm_rows(given.stream, row, count, normed);
      product(Rows{normed, width}.pairs(0), count, in_panels_, width / 2, 2 * hidden,
              Activate{given.gated + row * 2 * hidden, 2 * hidden, activated, hidden});
      product(Rows{activated, hidden}.pairs(0), count, out_panels, hidden / 2, width,
              Store{{given.out + row * width, width}});
    }
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

// Memory of a thread for the rows of a chunk.
class FeedForwardChunk {
 public:
  FeedForwardChunk(int64_t width, int64_t hidden)
      : memory_(CHUNK_ROWS * (width / 2 + hidden / 2 + hidden + width)),
        normed(memory_.take<uint16_t>(CHUNK_ROWS * width / 2)),
        activated(memory_.take<uint16_t>(CHUNK_ROWS * hidden / 2)),
        gated(memory_.take<uint16_t>(CHUNK_ROWS * hidden)),
        flows(memory_.take<float>(CHUNK_ROWS * width)) {}

 private:
  Scratch memory_;

 public:
  uint16_t *const normed, *const activated, *const gated;
  float* const flows;
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
  const WeightGradient gradients[2] = {{tokens.normed, tokens.gated, memory.take<float>(in_sums), to.w_in, in, true},
                                       {tokens.grad, tokens.activated, memory.take<float>(out_sums), to.w_out, out, false}};
  float* gain_sums = memory.take<float>(chunks * width);
  pack_backward(in, in_weights, threads);
  pack_backward(out, out_weights, threads);
  const auto chunk_back = [&](int64_t chunk, int64_t before, FeedForwardChunk& with) {
    const int64_t row = chunk * CHUNK_ROWS, count = std::min(CHUNK_ROWS, rows - row), pair = before / 2;
    const Rows grad{const_cast<uint16_t*>(to.stream.grad) + row * width, width};
    product(grad.pairs(0), count, out_weights, width / 2, in_panels(hidden),
            ActivateBackward{given.gated + row * 2 * hidden, hidden, with.gated, with.activated});
    product(Rows{with.gated, 2 * hidden}.pairs(0), count, in_weights, hidden, width, StoreFloat{with.flows, width});
    norm_rows_again(norm, row, count, with.normed);
    norm_rows_backward(norm, to.stream, row, count, with.flows, gain_sums + chunk * width);
    pack_tokens(grad, count, tokens.grad, pair);
    pack_tokens(Rows{with.normed, width}, count, tokens.normed, pair);
    pack_tokens(Rows{with.gated, 2 * hidden}, count, 2 * hidden, tokens.gated, pair);
    pack_tokens(Rows{with.activated, hidden}, count, hidden, tokens.activated, pair);
  };
  for (int64_t from = 0; from < chunks; from += together) {
    const int64_t some = std::min(together, chunks - from);
    each_part(some, CHUNK_ROWS * hidden, threads, [&](int64_t first, int64_t last) {
      FeedForwardChunk with(width, hidden);
      for (int64_t chunk = first; chunk < last; ++chunk) chunk_back(from + chunk, chunk * CHUNK_ROWS, with);
    });
    const int64_t packed = (std::min(rows, (from + some) * CHUNK_ROWS) - from * CHUNK_ROWS + 1) / 2;
    add_tokens(gradients, {packed, packed}, from == 0, from + some == chunks, threads);
  }
  sum_blocks(gain_sums, chunks, width, to.stream.grad_gain);
}

}  // namespace onerec
