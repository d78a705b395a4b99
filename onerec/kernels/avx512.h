// Sixteen numbers at a time, by AVX-512 with bfloat16: each instruction that rounds is named here, so results are a
// function of this source as they are in plain.h, though other numbers in their last places.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <initializer_list>

#include "bf16.h"

namespace onerec {

constexpr int64_t LANES = 16;

typedef __m512 Floats;

inline Floats all(float x) { return _mm512_set1_ps(x); }

inline Floats load(const float* from) { return _mm512_loadu_ps(from); }

inline Floats load(const Bf16* from) {
  const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(low), 16));
}

inline void store(float* to, Floats x) { _mm512_storeu_ps(to, x); }

// Rounds to the nearest, ties to even, as torch does; what is subnormal becomes 0.
inline void store(Bf16* to, Floats x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), (__m256i)_mm512_cvtneps_pbh(x));
}

// Of numbers of which one is none, the second.
inline Floats larger(Floats a, Floats b) { return _mm512_max_ps(a, b); }

// Each half of the lanes is added to the other one until there is one lane.
inline float sum(Floats x) {
  const __m256 y = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
  const __m128 z = _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
  const __m128 pair = _mm_add_ps(z, _mm_movehl_ps(z, z));
  return _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)));
}

inline float largest(Floats x) { return _mm512_reduce_max_ps(x); }

// e^x within 2 units in the last place; 0 where it would be subnormal, e^88 above 88, not a number where x is none.
// Cody and Waite's reduction, then the polynomial of the Cephes library (expf).
inline Floats exponential(Floats x) {
  const Floats bounded = _mm512_min_ps(all(88.0f), x);  // of numbers of which one is none, the second
  const Floats scaled = _mm512_mul_ps(bounded, all(1.44269504088896341f));
  const Floats power = _mm512_roundscale_ps(scaled, _MM_FROUND_TO_NEAREST_INT);
  Floats rest = _mm512_fnmadd_ps(power, all(0.693359375f), bounded);
  rest = _mm512_fnmadd_ps(power, all(-2.12194440e-4f), rest);
  Floats y = all(1.9875691500e-4f);
  for (const float term : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
    y = _mm512_fmadd_ps(y, rest, all(term));
  y = _mm512_add_ps(_mm512_fmadd_ps(_mm512_mul_ps(y, rest), rest, rest), all(1.0f));
  const __mmask16 normal = _mm512_cmp_ps_mask(x, all(-87.33654f), _CMP_NLT_UQ);
  return _mm512_maskz_scalef_ps(normal, y, power);
}

}  // namespace onerec
