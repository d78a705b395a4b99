"""A worker is stopped for longer than its session and its poll interval; then it wakes up."""

from __future__ import annotations

from chaos.fault import Context, Fault, Outcome
from chaos.system import worker

STALL_S = 14.0
"""More than session (6 s) and poll interval (10 s)."""
STALLS_LONG, STALLS_SHORT = 3, 1
LONGEST_LIFE_S = 5.0


def run(context: Context) -> Outcome:
    """Two workers; one of them sleeps, the other answers for it, then the zombie comes back."""
    stalls = STALLS_LONG if context.long else STALLS_SHORT
    with context.system() as system:
        system.start_worker(1)
        system.wait_ready(worker(1))
        answered = 0
        with system.feeding():
            for number in range(stalls):
                system.tend(context.rng.uniform(1.0, LONGEST_LIFE_S))
                asleep = worker(number % 2)
                before = system.progress.output()["answers"]
                system.pause(asleep)
                context.say(f"{asleep} sleeps for {STALL_S:.0f} s")
                system.tend(STALL_S)
                answered += system.progress.output()["answers"] - before
                system.resume([asleep])
            system.tend(LONGEST_LIFE_S)
        seen = f"{stalls} times stopped for {STALL_S:.0f} s; {answered} answers came meanwhile"
        return context.judge(system, seen=seen, vacuous=not answered)


FAULT = Fault(
    name="stalled-worker",
    injected="SIGSTOP of one of two workers past session and poll interval, then SIGCONT",
    promise="the other answers its requests; no request stays without an answer",
    run=run,
)
