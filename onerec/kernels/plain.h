// Eight numbers at a time, by the compiler's vectors and plain arithmetic: no contraction to fused multiply-adds, no
// order of addition left open. So results are a function of this source, whatever compiler and processor.
#pragma once

#include <cstdint>
#include <cstring>

#include "bf16.h"

namespace onerec {

constexpr int64_t LANES = 8;

typedef float Floats __attribute__((vector_size(32)));
typedef int32_t Ints __attribute__((vector_size(32)));
typedef uint32_t Bits __attribute__((vector_size(32)));
typedef uint16_t Halves __attribute__((vector_size(16)));

inline Floats all(float x) { return Floats{x, x, x, x, x, x, x, x}; }

inline Floats load(const float* from) {
  Floats x;
  std::memcpy(&x, from, sizeof x);
  return x;
}

inline Floats load(const Bf16* from) {
  Halves x;
  std::memcpy(&x, from, sizeof x);
  return (Floats)(__builtin_convertvector(x, Bits) << 16);
}

inline void store(float* to, Floats x) { std::memcpy(to, &x, sizeof x); }

// Rounds to the nearest, ties to even, as torch does.
inline void store(Bf16* to, Floats x) {
  const Bits bits = (Bits)x;
  const Bits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const Bits none = (Bits)(x != x);
  const Halves low = __builtin_convertvector((none & 0x7fc0) | (~none & rounded), Halves);
  std::memcpy(to, &low, sizeof low);
}

inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }

inline float sum(Floats x) { return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7])); }

inline float largest(Floats x) {
  float found = x[0];
  for (int64_t lane = 1; lane < LANES; ++lane) found = x[lane] > found ? x[lane] : found;
  return found;
}

// e^x within 2 units in the last place; 0 where it would be subnormal, e^88 above 88, not a number where x is none.
// The polynomial is that of the Cephes library (expf).
inline Floats exponential(Floats x) {
  const Floats smallest = all(-87.33654f), magic = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to integers
  Floats bounded = x > 88.0f ? all(88.0f) : x;
  bounded = bounded < smallest ? smallest : bounded;
  const Floats power = (bounded * 1.44269504088896341f + magic) - magic;
  const Floats rest = (bounded - power * 0.693359375f) - power * -2.12194440e-4f;
  Floats y = all(1.9875691500e-4f);
  y = y * rest + 1.3981999507e-3f;
  y = y * rest + 8.3334519073e-3f;
  y = y * rest + 4.1665795894e-2f;
  y = y * rest + 1.6666665459e-1f;
  y = y * rest + 5.0000001201e-1f;
  y = (y * rest) * rest + rest + 1.0f;
  const Floats scale = (Floats)((__builtin_convertvector(power, Ints) + 127) << 23);
  return x < smallest ? all(0.0f) : y * scale;
}

}  // namespace onerec
