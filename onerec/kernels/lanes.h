// LANES numbers at a time.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>

#ifdef __AVX512BF16__
#include "avx512.h"
#else
#include "plain.h"
#endif

namespace onerec {

constexpr float INFINITE = std::numeric_limits<float>::infinity();

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

}  // namespace onerec
