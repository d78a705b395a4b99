// Root mean square norm with a gain, of a sum: forward and backward in one pass over memory each.
#pragma once

#include <cmath>

#include "lanes.h"
#include "team.h"

namespace onerec {

// Of `rows` rows of `width` numbers, a multiple of LANES.
struct Norm {
  int64_t rows, width;
  float epsilon;
  const float* x;
  const float* gain;
  float* inverse;  // [rows]: one over the root mean square
};

// `total` = x + added, which is x itself where `added` is null; `out` = total * inverse * gain. Returns the inverse.
template <class Added, class Out>
float norm_row(const Norm& norm, const float* x, const Added* added, float* total, Out* out) {
  const int64_t width = norm.width;
  Floats squares = all(0.0f);
  for (int64_t at = 0; at < width; at += LANES) {
    Floats s = load(x + at);
    if (added) {
      s = s + load(added + at);
      store(total + at, s);
    }
    squares += s * s;
  }
  if (added) x = total;
  const float inverse = 1.0f / std::sqrt(sum(squares) / width + norm.epsilon);
  for (int64_t at = 0; at < width; at += LANES) store(out + at, load(x + at) * inverse * load(norm.gain + at));
  return inverse;
}

template <class Added, class Out>
void norm_forward(const Norm& norm, const Added* added, float* total, Out* out, int64_t threads) {
  const int64_t width = norm.width;
  each_part(norm.rows, width, threads, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      const int64_t at = row * width;
      norm.inverse[row] = norm_row(norm, norm.x + at, added ? added + at : added, total + at, out + at);
    }
  });
}

// What flows back along the stream.
template <class Low>
struct StreamFlow {
  const float* grad_total;  // of `total`, or null
  float* grad_x;            // of x, and of `added` where that is float32
  Low* grad_added;          // the same in low precision, or null
};

// What flows back to rows, given x as the forward's `total`.
template <class Grad, class Low>
struct NormGradients {
  const Grad* grad;          // of `out`
  StreamFlow<Low> stream;
  float* grad_gain;          // [width]
  float* partial;            // [blocks, width]
  int64_t blocks;            // into which rows are cut for the sums of `grad_gain`, however many threads there are
};

// One row; `gain_sums` [width] are added to.
template <class Grad, class Low>
void norm_row_backward(const Norm& norm, int64_t row, const Grad* grad, const StreamFlow<Low>& to, float* gain_sums) {
  const int64_t width = norm.width, start = row * width;
  const float* x = norm.x + start;
  const float inverse = norm.inverse[row];
  Floats along = all(0.0f);
  for (int64_t at = 0; at < width; at += LANES) {
    const Floats product = load(grad + at) * load(x + at);
    store(gain_sums + at, load(gain_sums + at) + product * inverse);
    along += product * load(norm.gain + at);
  }
  const float back = sum(along) * inverse * inverse * inverse / width;
  for (int64_t at = 0; at < width; at += LANES) {
    Floats g = load(grad + at) * load(norm.gain + at) * inverse - load(x + at) * back;
    if (to.grad_total) g += load(to.grad_total + start + at);
    store(to.grad_x + start + at, g);
    if (to.grad_added) store(to.grad_added + start + at, g);
  }
}

// The sums of all blocks, in their order.
inline void sum_blocks(const float* partial, int64_t blocks, int64_t width, float* to) {
  for (int64_t at = 0; at < width; at += LANES) {
    Floats total = all(0.0f);
    for (int64_t block = 0; block < blocks; ++block) total += load(partial + block * width + at);
    store(to + at, total);
  }
}

template <class Grad, class Low>
void norm_backward(const Norm& norm, const NormGradients<Grad, Low>& to, int64_t threads) {
  const int64_t width = norm.width, rows = norm.rows;
  each_part(to.blocks, rows * width / to.blocks, threads, [&](int64_t first, int64_t last) {
    for (int64_t block = first; block < last; ++block) {
      float* gain_sums = to.partial + block * width;
      for (int64_t at = 0; at < width; at += LANES) store(gain_sums + at, all(0.0f));
      for (int64_t row = rows * block / to.blocks; row < rows * (block + 1) / to.blocks; ++row)
        norm_row_backward(norm, row, to.grad + row * width, to.stream, gain_sums);
    }
  });
  sum_blocks(to.partial, to.blocks, width, to.grad_gain);
}

}  // namespace onerec
