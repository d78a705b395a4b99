// How many threads share a kernel's work.
#pragma once

#include <algorithm>
#include <atomic>

#include "threads.h"

namespace onerec {

constexpr int64_t WORTH_A_THREAD = 16384;  // elements

// Calls work(first, last) for parts of 0 to `count`, each of `elements`. How many parts there are must not matter.
template <class Work>
void each_part(int64_t count, int64_t elements, int64_t threads, const Work& work) {
  const int64_t worth = 1 + count * elements / WORTH_A_THREAD;
  in_parts(count, threads < worth ? threads : worth, work);
}

// Calls work(own, first, last) for runs of at most `each` of 0 to `count`, each of `elements`. A thread that is done
// with a run takes the next one, so one that is held up is not waited for; each calls begin() once for `own`.
template <class Begin, class Work>
void in_turn(int64_t count, int64_t each, int64_t elements, int64_t threads, const Begin& begin, const Work& work) {
  const int64_t runs = (count + each - 1) / each;
  const int64_t worth = std::min(runs, 1 + count * elements / WORTH_A_THREAD);
  std::atomic<int64_t> next{0};
  const int64_t workers = std::min(threads, worth);
  in_parts(workers, workers, [&](int64_t, int64_t) {
    auto own = begin();
    for (int64_t run; (run = next.fetch_add(1, std::memory_order_relaxed)) < runs;)
      work(own, run * each, std::min(count, (run + 1) * each));
  });
}

// The same, where runs share no memory of their thread: calls work(first, last).
template <class Work>
void in_turn(int64_t count, int64_t each, int64_t elements, int64_t threads, const Work& work) {
  const auto begin = [] { return 0; };
  in_turn(count, each, elements, threads, begin, [&](int, int64_t first, int64_t last) { work(first, last); });
}

}  // namespace onerec
