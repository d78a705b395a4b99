// The sparse mixture of experts of a decoder block; a dense FFN is one expert without a router.
#pragma once
#include "attention.h"

namespace onerec {

// For each row the `active` best experts of `scores` [rows, stride] after a softmax over all, as selection sees them
// (with the balancing bias); gates are the probabilities without it.
inline void route(const Model& m, const float* bias, float* scores, long rows, long stride, int32_t* chosen,
                  float* gates) {
  for (long row = 0; row < rows; ++row, scores += stride) {
    const float total = exponentials(scores, m.experts, stride);
    for (long place = 0; place < m.active; ++place) {
      long best = -1;
      for (long e = 0; e < m.experts; ++e) {
        const int32_t* taken = chosen + row * m.active;
        if (std::find(taken, taken + place, e) != taken + place) continue;
        if (best < 0 || scores[e] / total + bias[e] > scores[best] / total + bias[best]) best = e;
      }
      chosen[row * m.active + place] = static_cast<int32_t>(best);
      gates[row * m.active + place] = scores[best] / total;
    }
  }
}

// Adds the FFN of normalised rows to the residual x. Rows are sorted by expert, so that each expert's weights are
// read once.
inline void add_ffn(const Model& m, const Block& block, const Rows& normed, long rows, float* x, Arena& arena) {
  const long d = m.width, inner = block.hidden;
  if (block.router == nullptr) {
    Kept* hidden = arena.take<Kept>(rows * inner);
    product(normed, rows, block.w_in, d, 2 * inner, SwiGlu{hidden, inner});
    product(multipliable(hidden, inner, rows, inner, arena), rows, block.w_out, inner, d, Add{x, d});
    return;
  }
  const long stride = padded(m.experts), slots = rows * m.active;
  float* scores = arena.take<float>(rows * stride);
  int32_t* chosen = arena.take<int32_t>(slots);
  float* gates = arena.take<float>(slots);
  product(normed, rows, block.router, d, stride, StoreFloat{scores, stride});
  route(m, block.expert_bias, scores, rows, stride, chosen, gates);

  Element* picked = arena.take<Element>(slots * d);
  float* scales = arena.take<float>(slots);
  Kept* hidden = arena.take<Kept>(slots * inner);
  int32_t* source = arena.take<int32_t>(slots);
  float* weights = arena.take<float>(slots);
  for (long e = 0; e < m.experts; ++e) {
    long count = 0;
    for (long slot = 0; slot < slots; ++slot) {
      if (chosen[slot] != e) continue;
      source[count] = static_cast<int32_t>(slot / m.active);
      weights[count] = gates[slot];
      std::memcpy(picked + count * d, normed.data + source[count] * d, d * sizeof(Element));
      if constexpr (Isa::SCALED) scales[count] = normed.scales[source[count]];
      ++count;
    }
    if (count == 0) continue;
    const Scope scope;
    product(Rows{picked, d, scales}, count, block.w_in + e * packed_elements(d, 2 * inner), d, 2 * inner,
            SwiGlu{hidden, inner});
    product(multipliable(hidden, inner, count, inner, arena), count, block.w_out + e * packed_elements(inner, d), inner,
            d, AddGated{x, d, source, weights});
  }
}

}  // namespace onerec
