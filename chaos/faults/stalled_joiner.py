"""A joiner is stopped for longer than its session, its poll interval and its transaction; then it wakes up."""

from __future__ import annotations

from chaos.fault import Context, Fault, Outcome, needs_exactly_once
from chaos.system import joiner

STALL_S = 20.0
"""More than session (6 s), poll interval (10 s), and the transaction's timeout (15 s) with a second to notice."""
STALLS_LONG, STALLS_SHORT = 3, 1
LONGEST_LIFE_S = 5.0


def run(context: Context) -> Outcome:
    """Two joiners; one of them sleeps, the other takes its partitions, then the zombie comes back."""
    stalls = STALLS_LONG if context.long else STALLS_SHORT
    with context.system() as system:
        system.start_joiner(1)
        system.wait_ready(joiner(1))
        taken_over = 0
        with system.feeding():
            for number in range(stalls):
                system.tend(context.rng.uniform(1.0, LONGEST_LIFE_S))
                asleep = joiner(number % 2)
                before = system.progress.output()["sessions"]
                system.pause(asleep)
                context.say(f"{asleep} sleeps for {STALL_S:.0f} s")
                system.tend(STALL_S)
                taken_over += system.progress.output()["sessions"] - before
                system.resume([asleep])
            system.tend(LONGEST_LIFE_S)
        seen = f"{stalls} times stopped for {STALL_S:.0f} s; {taken_over} sessions came meanwhile"
        return context.judge(system, seen=seen, vacuous=not taken_over)


FAULT = Fault(
    name="stalled-joiner",
    injected="SIGSTOP of one of two joiners past session, poll interval and transaction timeout, then SIGCONT",
    promise="the other takes its partitions; the zombie's transaction is refused and it begins anew",
    run=run,
    missing=needs_exactly_once,
)
