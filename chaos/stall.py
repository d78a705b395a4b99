"""Members of a group are stopped past all that they are waited for, by turns; then they wake up."""

from __future__ import annotations

from collections.abc import Callable

from chaos.fault import Context, Outcome
from chaos.system import System

STALLS_LONG, STALLS_SHORT = 2, 1
"""Each of the two members once, or one of them."""
LONGEST_LIFE_S = 5.0


def stall_by_turns(
    context: Context, name: Callable[[int], str], start: Callable[[System, int], str], *, stall_s: float, output: str
) -> Outcome:
    """Two members; one of them sleeps for `stall_s`, the other takes its partitions, then the zombie comes back.

    `name` and `start` are of the kind of service, `output` is what it makes, a key of Progress.output: where none
    comes while one sleeps, nothing is shown.
    """
    stalls = STALLS_LONG if context.long else STALLS_SHORT
    with context.system() as system:
        system.wait_ready(start(system, 1))
        meanwhile = []
        with system.feeding():
            for number in range(stalls):
                system.tend(context.rng.uniform(1.0, LONGEST_LIFE_S))
                asleep = name(number % 2)
                before = system.progress.output()[output]
                system.pause(asleep)
                context.say(f"{asleep} sleeps for {stall_s:.0f} s")
                system.tend(stall_s)
                meanwhile.append(system.progress.output()[output] - before)
                system.resume([asleep])
            system.tend(LONGEST_LIFE_S)
        seen = f"{stalls} times stopped for {stall_s:.0f} s; {sum(meanwhile)} {output} came meanwhile"
        return context.judge(system, seen=seen, vacuous=not all(meanwhile))
