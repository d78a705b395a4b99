// SwiGLU: silu(gate) * value, gates and values side by side in each row.
#pragma once

#include "lanes.h"
#include "team.h"

namespace onerec {

inline Floats sigmoid(Floats x) { return 1.0f / (1.0f + exponential(-x)); }

// x [rows, 2 * hidden] -> out [rows, hidden]; hidden is a multiple of LANES.
template <class T>
void swiglu_forward(int64_t rows, int64_t hidden, const T* x, T* out, int64_t threads) {
  each_part(rows, hidden, threads, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      const T *gates = x + 2 * row * hidden, *values = gates + hidden;
      for (int64_t at = 0; at < hidden; at += LANES) {
        const Floats gate = load(gates + at);
        store(out + row * hidden + at, gate * sigmoid(gate) * load(values + at));
      }
    }
  });
}

// grad [rows, hidden] -> grad_x [rows, 2 * hidden].
template <class T>
void swiglu_backward(int64_t rows, int64_t hidden, const T* x, const T* grad, T* grad_x, int64_t threads) {
  each_part(rows, 2 * hidden, threads, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      const int64_t start = 2 * row * hidden;
      const T *gates = x + start, *values = gates + hidden;
      for (int64_t at = 0; at < hidden; at += LANES) {
        const Floats gate = load(gates + at), flow = load(grad + row * hidden + at);
        const Floats share = sigmoid(gate), activated = gate * share;
        store(grad_x + start + at, flow * load(values + at) * (share + activated * (1.0f - share)));
        store(grad_x + start + hidden + at, flow * activated);
      }
    }
  });
}

}  // namespace onerec
