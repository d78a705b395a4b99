// What the library exports. A kind is 0 for float32 and 1 for bfloat16; pointers that may be null are named so.
#ifdef __AVX512BF16__
#include "attention_branch.h"
#include "experts.h"
#include "feed_forward.h"
#endif
#include "norm.h"
#include "softmax.h"
#include "swiglu.h"

namespace onerec {
namespace {

template <class T>
struct Of {
  using Type = T;
};

// Calls work with the type of a kind.
template <class Work>
void with_kind(int64_t kind, const Work& work) {
  if (kind) {
    work(Of<Bf16>());
  } else {
    work(Of<float>());
  }
}

}  // namespace
}  // namespace onerec

extern "C" {

int64_t onerec_lanes() { return onerec::LANES; }

// `added` may be null, and `total` is not written then.
void onerec_norm_forward(const onerec::Norm* norm, int64_t added_kind, const void* added, float* total, int64_t kind,
                         void* out, int64_t threads) {
  onerec::with_kind(added_kind, [&](auto added_of) {
    using Added = typename decltype(added_of)::Type;
    onerec::with_kind(kind, [&](auto out_of) {
      using Out = typename decltype(out_of)::Type;
      onerec::norm_forward(*norm, static_cast<const Added*>(added), total, static_cast<Out*>(out), threads);
    });
  });
}

// `grad_total` and `grad_added`, a bfloat16, may be null.
void onerec_norm_backward(const onerec::Norm* norm, int64_t kind, const void* grad, const float* grad_total,
                          float* grad_x, void* grad_added, float* grad_gain, float* partial, int64_t blocks,
                          int64_t threads) {
  onerec::with_kind(kind, [&](auto of) {
    using Grad = typename decltype(of)::Type;
    const onerec::StreamFlow<onerec::Bf16> stream{grad_total, grad_x, static_cast<onerec::Bf16*>(grad_added)};
    const onerec::NormGradients<Grad, onerec::Bf16> to{static_cast<const Grad*>(grad), stream, grad_gain, partial,
                                                       blocks};
    onerec::norm_backward(*norm, to, threads);
  });
}

void onerec_swiglu_forward(int64_t kind, int64_t rows, int64_t hidden, const void* x, void* out, int64_t threads) {
  onerec::with_kind(kind, [&](auto of) {
    using T = typename decltype(of)::Type;
    onerec::swiglu_forward(rows, hidden, static_cast<const T*>(x), static_cast<T*>(out), threads);
  });
}

void onerec_swiglu_backward(int64_t kind, int64_t rows, int64_t hidden, const void* x, const void* grad, void* grad_x,
                            int64_t threads) {
  onerec::with_kind(kind, [&](auto of) {
    using T = typename decltype(of)::Type;
    onerec::swiglu_backward(rows, hidden, static_cast<const T*>(x), static_cast<const T*>(grad),
                            static_cast<T*>(grad_x), threads);
  });
}

// `kept` may be null.
void onerec_softmax_forward(const onerec::Scores* scores, int64_t kind, const void* given, void* share, void* kept,
                            int64_t threads) {
  onerec::with_kind(kind, [&](auto of) {
    using T = typename decltype(of)::Type;
    onerec::softmax_forward(*scores, static_cast<const T*>(given), static_cast<T*>(share),
                            static_cast<onerec::Row*>(kept), threads);
  });
}

// `kept` may be null.
void onerec_softmax_backward(const onerec::Scores* scores, int64_t kind, const void* given, const void* kept,
                             void* grad, int64_t threads) {
  onerec::with_kind(kind, [&](auto of) {
    using T = typename decltype(of)::Type;
    onerec::softmax_backward(*scores, static_cast<const T*>(given), static_cast<const onerec::Row*>(kept),
                             static_cast<T*>(grad), threads);
  });
}

#ifdef __AVX512BF16__
void onerec_attention_forward(const onerec::Attention* given, const onerec::Heads* out, int64_t threads) {
  onerec::attention_forward(*given, *out, threads);
}

void onerec_attention_backward(const onerec::Attention* given, const onerec::AttentionGradients* grads,
                               int64_t threads) {
  onerec::attention_backward(*given, *grads, threads);
}

void onerec_attention_branch_forward(const onerec::AttentionBranch* given, int64_t threads) {
  onerec::attention_branch(*given, threads);
}

void onerec_attention_branch_backward(const onerec::AttentionBranch* given,
                                      const onerec::AttentionBranchGradients* grads, int64_t threads) {
  onerec::attention_branch_backward(*given, *grads, threads);
}

void onerec_feed_forward_forward(const onerec::FeedForward* given, int64_t threads) {
  onerec::feed_forward(*given, threads);
}

void onerec_feed_forward_backward(const onerec::FeedForward* given, const onerec::FeedForwardGradients* grads,
                                  int64_t threads) {
  onerec::feed_forward_backward(*given, *grads, threads);
}

void onerec_experts_forward(const onerec::Experts* given, int64_t threads) { onerec::experts_forward(*given, threads); }

void onerec_experts_backward(const onerec::Experts* given, const onerec::ExpertsGradients* grads, int64_t threads) {
  onerec::experts_backward(*given, *grads, threads);
}
#endif

}
