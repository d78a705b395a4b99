// The decode engine's kernels: the encoder, the memory, steps of the decoder, whole sessions.
//
// Threads have parts of a batch: requests, or rows of them. Parts share nothing but what is read, so the results do not
// depend on how many there are.
#include "session.h"

using namespace onerec;

namespace {

// Calls work(first, last, threads): requests that threads can share evenly are each thread's own, from the first to
// the last; of others all threads share the work for each.
template <class Work>
void by_requests(int64_t requests, int64_t threads, const Work& work) {
  if (requests % threads == 0)
    in_parts(requests, threads, [&](int64_t first, int64_t last) { work(first, last, 1); });
  else
    work(0, requests, threads);
}

}  // namespace

extern "C" {

// The widths that the caller has to know: columns of a vector, bytes of an element.
int64_t onerec_lanes() { return LANES; }
int64_t onerec_element_bytes() { return sizeof(Element); }
int64_t onerec_piece(int64_t length, int64_t width) { return piece(length, width); }
int64_t onerec_packed_elements(int64_t k, int64_t n) { return packed_elements(k, padded(n)); }

// Weights [k, n] float32 -> packed [k, padded n] elements. k is a multiple of 4.
void onerec_pack(const float* weights, int64_t k, int64_t n, Element* to) {
  pack(k, padded(n), [=](long row, long column) {
    const float weight = column < n ? weights[row * n + column] : 0.0f;
    if constexpr (Isa::SCALED)
      return weight;
    else
      return Isa::narrow(weight);
  }, to);
}

// Kept rows [m, k] times packed [k, n]: float32 [m, padded n].
void onerec_product(const Kept* rows, int64_t m, const Element* packed, int64_t k, int64_t n, float* to) {
  [[maybe_unused]] const Tiles tiles;
  const Scope scope;
  product(multipliable(rows, k, m, k, arena), m, packed, k, padded(n), StoreFloat{to, padded(n)});
}

// Histories x [B, positions, d] float32 (used up) of B requests to the memory of `state`.
void onerec_encode(const Model* model, const State* state, float* x, int64_t positions, int64_t requests,
                   int64_t threads) {
  by_requests(requests, threads, [&](int64_t first, int64_t last, int64_t sharing) {
    for (long request = first; request < last; ++request) {
      const Scope scope;
      encode(*model, x + request * positions * model->width, state->lengths[request], state->memory[request], sharing);
    }
  });
}

// One step of B requests; their logits are written.
void onerec_advance(const Model* model, const State* state, const Step* step, int64_t requests, int64_t threads) {
  advance(*model, *state, *step, requests, threads);
}

// The sessions of B requests, by beam search.
void onerec_generate(const Model* model, const Tree* tree, const State* state, const Plan* plan,
                     const Sessions* sessions, int64_t requests, int64_t threads) {
  by_requests(requests, threads, [&](int64_t first, int64_t last, int64_t sharing) {
    Generation(*model, *tree, *state, *plan, *sessions, first, last - first, sharing).run();
  });
}

// One step of the search for B requests, alone; a node of the level has `widest` children at most.
void onerec_search(const Tree* tree, const Search* step, int64_t widest, int64_t requests) {
  for (long request = 0; request < requests; ++request) {
    const Scope scope;
    search(*tree, *step, request, widest, arena);
  }
}

}  // extern "C"
