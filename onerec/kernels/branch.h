// What the branches of a residual stream share: each begins with the norm of what the stream has become.
//
// A branch is one call: rows pass through its norm, products and what is between them while they are in the cache, and
// threads meet once or twice, where they would after each product.
#pragma once

#include "norm.h"
#include "tokens.h"

namespace onerec {

constexpr int64_t CHUNK_ROWS = 48;         // that one thread takes through a branch at once: whole tiles, whole pairs
constexpr int64_t GRADIENT_ROWS = 1920;    // about as many are packed before they are added to gradients of weights

// The stream before a branch, and what the branch before adds to it.
struct Stream {
  Norm norm;
  int64_t added_kind;  // 0 for float32, 1 for bfloat16
  const void* added;   // or null
  float* total;        // their sum; x itself where nothing is added
};

// The norm of rows as bfloat16, side by side.
inline void norm_rows(const Stream& stream, int64_t first, int64_t count, uint16_t* to) {
  const Norm& norm = stream.norm;
  Bf16* out = reinterpret_cast<Bf16*>(to);
  for (int64_t row = 0; row < count; ++row, out += norm.width) {
    const int64_t at = (first + row) * norm.width;
    float& inverse = norm.inverse[first + row];
    if (!stream.added) {
      inverse = norm_row(norm, norm.x + at, static_cast<const float*>(nullptr), stream.total, out);
    } else if (stream.added_kind) {
      inverse = norm_row(norm, norm.x + at, static_cast<const Bf16*>(stream.added) + at, stream.total + at, out);
    } else {
      inverse = norm_row(norm, norm.x + at, static_cast<const float*>(stream.added) + at, stream.total + at, out);
    }
  }
}

// The same again, in the backward, whose `norm.x` is the sum.
inline void norm_rows_again(const Norm& norm, int64_t first, int64_t count, uint16_t* to) {
  for (int64_t row = 0; row < count; ++row, to += norm.width)
    for (int64_t at = 0; at < norm.width; at += LANES)
      narrow_to(to + at, load(norm.x + (first + row) * norm.width + at) * norm.inverse[first + row] *
                             load(norm.gain + at));
}

// What flows back from a branch and along the stream.
struct StreamGradients {
  const uint16_t* grad;  // of the branch
  StreamFlow<Bf16> stream;
  float* grad_gain;
};

// `grads` of the norm of rows, side by side; `gain_sums` are begun.
inline void norm_rows_backward(const Norm& norm, const StreamGradients& to, int64_t first, int64_t count,
                               const float* grads, float* gain_sums) {
  for (int64_t at = 0; at < norm.width; at += LANES) store(gain_sums + at, all(0.0f));
  for (int64_t row = 0; row < count; ++row)
    norm_row_backward(norm, first + row, grads + row * norm.width, to.stream, gain_sums);
}

}  // namespace onerec
