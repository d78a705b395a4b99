// The softmax of attention: scores are scaled, a bias is added, each row sums to one. Computed in float32.
#pragma once

#include <vector>

#include "lanes.h"
#include "team.h"

namespace onerec {

// Scores [batch, heads, queries, keys] without gaps, and what is added to them, broadcast by strides of 0.
struct Scores {
  int64_t batch, heads, queries, keys;
  float scale;
  const float* bias;  // or null; keys lie side by side
  int64_t bias_batch, bias_head, bias_query;

  int64_t rows() const { return batch * heads * queries; }

  const float* bias_of(int64_t row) const {
    if (!bias) return nullptr;
    const int64_t query = row % queries, head = row / queries % heads, sample = row / queries / heads;
    return bias + sample * bias_batch + head * bias_head + query * bias_query;
  }
};

// Scaled scores of a row with their bias, in whole vectors: behind the last key there is minus infinity.
template <class T>
void spread(const Scores& scores, int64_t row, const T* given, float* out) {
  const float* bias = scores.bias_of(row);
  const int64_t whole = scores.keys / LANES * LANES, left = scores.keys - whole;
  const T* from = given + row * scores.keys;
  for (int64_t at = 0; at < whole; at += LANES) {
    const Floats x = load(from + at) * scores.scale;
    store(out + at, bias ? x + load(bias + at) : x);
  }
  if (left) {
    const Floats x = load_some(from + whole, left, -INFINITE) * scores.scale;
    store(out + whole, bias ? x + load_some(bias + whole, left, 0.0f) : x);
  }
}

template <class T>
void keep(const float* from, int64_t count, T* to) {
  int64_t at = 0;
  for (; at + LANES <= count; at += LANES) store(to + at, load(from + at));
  if (at < count) store_some(to + at, load(from + at), count - at);
}

// What is kept of a row to compute its shares again.
struct Row {
  float largest, inverse;
};

// `share` may be `given` itself.
template <class T>
void softmax_forward(const Scores& scores, const T* given, T* share, Row* kept, int64_t threads) {
  each_part(scores.rows(), scores.keys, threads, [&](int64_t first, int64_t last) {
    std::vector<float> buffer((scores.keys + LANES - 1) / LANES * LANES);
    float* x = buffer.data();
    const int64_t padded = static_cast<int64_t>(buffer.size());
    for (int64_t row = first; row < last; ++row) {
      spread(scores, row, given, x);
      Floats most = all(-INFINITE), total = all(0.0f);
      for (int64_t at = 0; at < padded; at += LANES) most = larger(load(x + at), most);
      const float top = largest(most);
      for (int64_t at = 0; at < padded; at += LANES) {
        const Floats e = exponential(load(x + at) - top);
        store(x + at, e);
        total += e;
      }
      const float inverse = 1.0f / sum(total);
      for (int64_t at = 0; at < padded; at += LANES) store(x + at, load(x + at) * inverse);
      keep(x, scores.keys, share + row * scores.keys);
      if (kept) kept[row] = {top, inverse};
    }
  });
}

// Gradients of shares become those of products, in place. `given` are the shares, or, where `kept` is there, scores of
// low precision, from which shares are computed again in float32.
template <class T>
void softmax_backward(const Scores& scores, const T* given, const Row* kept, T* grad, int64_t threads) {
  each_part(scores.rows(), scores.keys, threads, [&](int64_t first, int64_t last) {
    const int64_t whole = scores.keys / LANES * LANES, left = scores.keys - whole;
    std::vector<float> shares(whole + LANES), flows(whole + LANES);
    float *p = shares.data(), *g = flows.data();
    const int64_t padded = whole + (left ? LANES : 0);
    for (int64_t row = first; row < last; ++row) {
      const T* from = given + row * scores.keys;
      T* to = grad + row * scores.keys;
      if (kept) {
        spread(scores, row, given, p);
        for (int64_t at = 0; at < padded; at += LANES)
          store(p + at, exponential(load(p + at) - kept[row].largest) * kept[row].inverse);
      } else {
        for (int64_t at = 0; at < whole; at += LANES) store(p + at, load(from + at));
        if (left) store(p + whole, load_some(from + whole, left, 0.0f));
      }
      for (int64_t at = 0; at < whole; at += LANES) store(g + at, load(to + at));
      if (left) store(g + whole, load_some(to + whole, left, 0.0f));
      Floats along = all(0.0f);
      for (int64_t at = 0; at < padded; at += LANES) along += load(p + at) * load(g + at);
      const float mean = sum(along);
      for (int64_t at = 0; at < padded; at += LANES)
        store(g + at, load(p + at) * (load(g + at) - mean) * scores.scale);
      keep(g, scores.keys, to);
    }
  });
}

}  // namespace onerec
