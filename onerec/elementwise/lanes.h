// LANES numbers at a time, by the compiler's vectors and plain arithmetic: no contraction to fused multiply-adds, no
// order of addition left open. So results are a function of this source and of LANES, whatever compiler and processor.
#pragma once

#ifndef ONEREC_LANES
#define ONEREC_LANES 8
#endif

#include <cstdint>
#include <cstring>
#include <limits>

namespace onerec {

constexpr int64_t LANES = ONEREC_LANES;
constexpr float INFINITE = std::numeric_limits<float>::infinity();

typedef float Floats __attribute__((vector_size(4 * ONEREC_LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * ONEREC_LANES)));
typedef uint32_t Bits __attribute__((vector_size(4 * ONEREC_LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * ONEREC_LANES)));

// A bfloat16: the upper half of a float.
struct Bf16 {
  uint16_t bits;
};

inline Floats all(float x) { return x - Floats{}; }

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

// The first `count` numbers, and `fill` in the other lanes.
template <class T>
inline Floats load_some(const T* from, int64_t count, float fill) {
  T some[LANES] = {};
  std::memcpy(some, from, count * sizeof(T));
  Floats x = load(some);
  for (int64_t lane = count; lane < LANES; ++lane) x[lane] = fill;
  return x;
}

template <class T>
inline void store_some(T* to, Floats x, int64_t count) {
  T some[LANES];
  store(some, x);
  std::memcpy(to, some, count * sizeof(T));
}

inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }

// Each half of the lanes is added to the other one until there is one lane.
inline float sum(Floats x) {
  typedef float Eight __attribute__((vector_size(32)));
  Eight parts[LANES / 8];
  std::memcpy(parts, &x, sizeof x);
  const Eight y = LANES == 8 ? parts[0] : parts[0] + parts[LANES / 8 - 1];
  return ((y[0] + y[4]) + (y[2] + y[6])) + ((y[1] + y[5]) + (y[3] + y[7]));
}

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
