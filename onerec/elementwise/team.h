// Work for several threads: those of torch's own OpenMP, which this library finds already loaded.
#pragma once

#include <cstdint>

extern "C" {
void GOMP_parallel(void (*work)(void*), void* data, unsigned threads, unsigned flags);
int omp_get_thread_num();
int omp_get_num_threads();
}

namespace onerec {

constexpr int64_t WORTH_A_THREAD = 16384;  // elements

// Calls work(first, last) for parts of 0 to `count`, each of `elements`. How many parts there are must not matter.
template <class Work>
void each_part(int64_t count, int64_t elements, int64_t threads, const Work& work) {
  const int64_t worth = 1 + count * elements / WORTH_A_THREAD;
  const int64_t parts = threads < worth ? threads : worth;
  if (parts < 2) {
    work(int64_t{0}, count);
    return;
  }
  struct Team {
    const Work& work;
    int64_t count;
  } team{work, count};
  GOMP_parallel(
      [](void* data) {
        const Team& team = *static_cast<Team*>(data);
        const int64_t part = omp_get_thread_num(), parts = omp_get_num_threads();  // there may be fewer than asked for
        team.work(team.count * part / parts, team.count * (part + 1) / parts);
      },
      &team, static_cast<unsigned>(parts), 0);
}

}  // namespace onerec
