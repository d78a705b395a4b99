// How many threads share a kernel's work.
#pragma once

#include "threads.h"

namespace onerec {

constexpr int64_t WORTH_A_THREAD = 16384;  // elements

// Calls work(first, last) for parts of 0 to `count`, each of `elements`. How many parts there are must not matter.
template <class Work>
void each_part(int64_t count, int64_t elements, int64_t threads, const Work& work) {
  const int64_t worth = 1 + count * elements / WORTH_A_THREAD;
  in_parts(count, threads < worth ? threads : worth, work);
}

}  // namespace onerec
