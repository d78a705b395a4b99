// The instructions that the kernels are written in, one struct a kind of processor. Everything else is a template
// over it.
//
// A Factor holds what one multiply-accumulate takes of each column: PAIR elements for each of LANES columns. Elements
// are what products with weights multiply: bfloat16 where the processor multiplies pairs of them, or, where that is
// asked for, quadruples of 8-bit integers; else float32 or, faster, pairs of 16-bit integers. Integers have a scale for
// each row and each column (SCALED). Kept are activations between products and cached keys and values: bfloat16 where
// the processor has it, else float32. Recalled is what attention over a memory multiplies: elements, but not those of 8
// bits, which are too coarse for its shares. Norms, softmax and the residual stream are float32 always.
#pragma once
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace onerec {

#ifdef __AVX512BF16__
struct Avx512Bf16 {
  using Vector = __m512;
  using Element = uint16_t;
  using Factor = __m512bh;
  using Sum = Vector;
  static constexpr int LANES = 16, PAIR = 2, TILE_ROWS = 12, CENTRE = 0;
  static constexpr bool SCALED = false;

  static Vector zero() { return _mm512_setzero_ps(); }
  static Vector all(float x) { return _mm512_set1_ps(x); }
  static Vector load(const float* from) { return _mm512_loadu_ps(from); }
  static void store(float* to, Vector x) { _mm512_storeu_ps(to, x); }
  static Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
  static Vector sub(Vector a, Vector b) { return _mm512_sub_ps(a, b); }
  static Vector mul(Vector a, Vector b) { return _mm512_mul_ps(a, b); }
  static Vector div(Vector a, Vector b) { return _mm512_div_ps(a, b); }
  static Vector max(Vector a, Vector b) { return _mm512_max_ps(a, b); }
  static Vector fma(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
  static float sum(Vector x) { return _mm512_reduce_add_ps(x); }
  static float most(Vector x) { return _mm512_reduce_max_ps(x); }
  static Vector nearest(Vector x) {
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  // x * 2^n for whole n, and 0 where `of` is not above `bound`.
  static Vector scaled_above(Vector x, Vector n, Vector of, float bound) {
    return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(of, all(bound), _CMP_GT_OQ), x, n);
  }

  static Element narrow(float x) {
    return static_cast<Element>(_mm_extract_epi16((__m128i)_mm_cvtneps_pbh(_mm_set_ss(x)), 0));
  }
  static Vector widen(const Element* from) {
    const __m512i halves = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
    return _mm512_castsi512_ps(_mm512_slli_epi32(halves, 16));
  }
  static void store(Element* to, Vector x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), (__m256i)_mm512_cvtneps_pbh(x));
  }
  static Factor factor(const Element* from) { return (Factor)_mm512_loadu_si512(from); }
  static Factor broadcast(const Element* from) {
    return (Factor)_mm512_set1_epi32(*reinterpret_cast<const int*>(from));
  }
  static Sum nothing() { return zero(); }
  static Sum multiply(Sum sum, Factor a, Factor b) { return _mm512_dpbf16_ps(sum, a, b); }
  static Vector total(Sum sum) { return sum; }
};
using Keeping = Avx512Bf16;

#ifdef ONEREC_INT8
// Four 8-bit integers summed in 32 bits: twice the rate of bfloat16. The instruction takes rows without a sign, so they
// are stored CENTRE higher, and sums begin at what that is too much.
struct Avx512Int8 : Avx512Bf16 {
  using Element = int8_t;
  using Factor = __m512i;
  using Sum = __m512i;
  static constexpr int PAIR = 4, CENTRE = 128;
  static constexpr bool SCALED = true;
  static constexpr float LARGEST = 127.0f;  // of a row

  using Avx512Bf16::store;
  static void store(Element* to, Vector x) {
    const __m512i whole = _mm512_add_epi32(_mm512_cvtps_epi32(x), _mm512_set1_epi32(CENTRE));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(whole));
  }
  static Factor factor(const Element* from) { return _mm512_loadu_si512(from); }
  static Factor broadcast(const Element* from) { return _mm512_set1_epi32(*reinterpret_cast<const int*>(from)); }
  static Sum nothing() { return _mm512_setzero_si512(); }
  static Sum multiply(Sum sum, Factor row, Factor column) {
    // As an intrinsic, GCC copies the sums to the stack at every step: 385 GFLOP/s instead of 900.
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(row), "v"(column));
    return sum;
  }
  static Vector total(Sum sum) { return _mm512_cvtepi32_ps(sum); }

  // Of a column, the largest element of which is `most`.
  static float fitting_scale(float most, float, long, float) { return std::max(most / 127.0f, 1e-30f); }
};
using Isa = Avx512Int8;
using Recalling = Keeping;
#else
using Isa = Avx512Bf16;
using Recalling = Isa;
#endif
#else
struct Avx2 {
  using Vector = __m256;
  using Element = float;
  using Factor = __m256;
  using Sum = Vector;
  static constexpr int LANES = 8, PAIR = 1, TILE_ROWS = 6, CENTRE = 0;
  static constexpr bool SCALED = false;

  static Vector zero() { return _mm256_setzero_ps(); }
  static Vector all(float x) { return _mm256_set1_ps(x); }
  static Vector load(const float* from) { return _mm256_loadu_ps(from); }
  static void store(float* to, Vector x) { _mm256_storeu_ps(to, x); }
  static Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
  static Vector sub(Vector a, Vector b) { return _mm256_sub_ps(a, b); }
  static Vector mul(Vector a, Vector b) { return _mm256_mul_ps(a, b); }
  static Vector div(Vector a, Vector b) { return _mm256_div_ps(a, b); }
  static Vector max(Vector a, Vector b) { return _mm256_max_ps(a, b); }
  static Vector fma(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
  static float sum(Vector x) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
  }
  static float most(Vector x) {
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
  }
  static Vector nearest(Vector x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static Vector scaled_above(Vector x, Vector n, Vector of, float bound) {
    const __m256i exponent = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_and_ps(_mm256_cmp_ps(of, all(bound), _CMP_GT_OQ), mul(x, _mm256_castsi256_ps(exponent)));
  }

  static Element narrow(float x) { return x; }
  static Vector widen(const Element* from) { return load(from); }
  static Factor factor(const Element* from) { return load(from); }
  static Factor broadcast(const Element* from) { return _mm256_broadcast_ss(from); }
  static Sum nothing() { return zero(); }
  static Sum multiply(Sum sum, Factor a, Factor b) { return fma(a, b, sum); }
  static Vector total(Sum sum) { return sum; }
};
using Keeping = Avx2;

#ifdef ONEREC_INT16
// Pairs of 16-bit integers summed in 32 bits: 1.6 times the rate of float32 on Zen 3.
struct Avx2Int16 : Avx2 {
  using Element = int16_t;
  using Factor = __m256i;
  using Sum = __m256i;
  static constexpr int PAIR = 2;
  static constexpr bool SCALED = true;
  static constexpr float LARGEST = 4095.0f;  // of a row

  using Avx2::store;
  static void store(Element* to, Vector x) {
    const __m256i whole = _mm256_cvtps_epi32(x);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                     _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1)));
  }
  static Factor factor(const Element* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }
  static Factor broadcast(const Element* from) { return _mm256_set1_epi32(*reinterpret_cast<const int*>(from)); }
  static Sum nothing() { return _mm256_setzero_si256(); }
  static Sum multiply(Sum sum, Factor a, Factor b) {
    // As an intrinsic, GCC loads all rows' factors first and spills the sums: 98 GFLOP/s instead of 160.
    asm volatile("vpaddd %1, %0, %0" : "+x"(sum) : "x"(_mm256_madd_epi16(a, b)));
    return sum;
  }
  static Vector total(Sum sum) { return _mm256_cvtepi32_ps(sum); }

  // Of a column of k elements, the largest of which is `most` and which add up to `sum` without signs: they fit 16
  // bits, and times a row of no more than `row_most` their sum fits 32.
  static float fitting_scale(float most, float sum, long k, float row_most) {
    const float room = 2.1e9f / row_most - 0.5f * k;  // rounding adds half a unit a row at most
    return std::max({most / 32767.0f, sum / room, 1e-30f});
  }
};
using Isa = Avx2Int16;
#else
using Isa = Avx2;
#endif
using Recalling = Isa;
#endif

using Vector = Isa::Vector;
using Element = Isa::Element;
using Kept = Keeping::Element;
using Recalled = Recalling::Element;
constexpr int LANES = Isa::LANES, TILE_ROWS = Isa::TILE_ROWS;
constexpr int KEPT_FACTOR = LANES * Keeping::PAIR;  // elements of a Factor
constexpr long PANEL = 2 * LANES;     // columns that a tile works on
constexpr long UNIT = 32;             // widths and padded lengths are multiples of this

// COUNT elements into the first cache; where they lie may be behind what there is.
template <long COUNT, class T>
inline void fetch_soon(const T* from) {
  constexpr long LINE = 64 / sizeof(T);
  for (long at = 0; at < COUNT; at += LINE) _mm_prefetch(reinterpret_cast<const char*>(from + at), _MM_HINT_T0);
}

inline long padded(long n) { return (n + UNIT - 1) / UNIT * UNIT; }

// exp within 2 units in the last place for -87.3 < x <= 88, and 0 below. Cody and Waite's reduction, then a
// polynomial of degree 6 on [-ln2 / 2, ln2 / 2].
inline Vector exp(Vector x) {
  const Vector n = Isa::nearest(Isa::mul(Isa::max(x, Isa::all(-88.0f)), Isa::all(1.44269504f)));
  Vector r = Isa::fma(n, Isa::all(-0.693359375f), Isa::max(x, Isa::all(-88.0f)));
  r = Isa::fma(n, Isa::all(2.12194440e-4f), r);
  Vector p = Isa::all(1.0f / 720);
  for (const float term : {1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) p = Isa::fma(p, r, Isa::all(term));
  return Isa::scaled_above(p, n, x, -87.3f);
}

inline Vector silu(Vector x) {
  const Vector falling = exp(Isa::sub(Isa::zero(), Isa::max(x, Isa::all(-87.0f))));
  return Isa::div(x, Isa::add(Isa::all(1.0f), falling));
}

}  // namespace onerec
