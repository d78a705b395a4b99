// Work for several threads: those of torch's own OpenMP, which a library finds already loaded. Threads of one's own
// would find the processors taken: OpenMP's wait for torch's next operation by spinning.
#pragma once

#include <cstdint>

extern "C" {
void GOMP_parallel(void (*work)(void*), void* data, unsigned threads, unsigned flags);
int omp_get_thread_num();
int omp_get_num_threads();
}

namespace onerec {

// Calls work(first, last) for `parts` parts of 0 to `count`, side by side. How many there are must not matter.
template <class Work>
void in_parts(int64_t count, int64_t parts, const Work& work) {
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
