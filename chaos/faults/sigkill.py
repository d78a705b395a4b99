"""SIGKILL of any subset of the services, again and again at random times while the log flows."""

from __future__ import annotations

import time

from chaos.fault import Context, Fault, Outcome
from chaos.system import System

KILLS_LONG, KILLS_SHORT = 50, 6
EARLY_SHARE = 0.3
"""Of the waves: they come while processes still start."""
EARLY_S, LATE_S, DEATH_S = 3.0, 2.0, 1.0
"""The longest waits before an early kill, before one at work, and before a new start."""
WORK_TIMEOUT_S = 60.0
LIVING = ("sessions", "steps", "versions", "answers")
"""What must have come out between two waves that fall into the work."""


def run(context: Context) -> Outcome:
    """Kill until there were enough; some die before they are up again, some in the middle of their work."""
    wanted = KILLS_LONG if context.long else KILLS_SHORT
    with context.system() as system:
        victims = [name for name in system.services if context.broker.exactly_once or not name.startswith("joiner")]
        kills, waves, at_work = 0, 0, 0
        first = before = system.progress.output()
        with system.feeding():
            while kills < wanted:
                if waves and context.rng.random() < EARLY_SHARE:
                    system.tend(context.rng.uniform(0.0, EARLY_S))
                else:
                    at_work += wait_for_output(system, before)
                    system.tend(context.rng.uniform(0.0, LATE_S))
                before = system.progress.output()
                chosen = sorted(context.rng.sample(victims, context.rng.randint(1, len(victims))))
                kills, waves = kills + system.kill(chosen), waves + 1
                context.say(f"wave {waves}: SIGKILL to {', '.join(chosen)}, {kills} so far")
                context.pause(context.rng.uniform(0.0, DEATH_S))
        emitted = {name: before[name] - first[name] for name in before}
        told = ", ".join(f"{count} {name}" for name, count in emitted.items())
        seen = f"{kills} kills in {waves} waves, {at_work} of them into the work; before the last one came {told}"
        return context.judge(system, kills=kills, seen=seen, vacuous=not all(emitted[name] for name in LIVING))


def wait_for_output(system: System, before: dict[str, int]) -> bool:
    """Until everything of LIVING has come out since `before`; whether that came in time."""
    deadline_s = time.monotonic() + WORK_TIMEOUT_S
    while time.monotonic() < deadline_s:
        system.tend(0.5)
        now = system.progress.output()
        if all(now[name] > before[name] for name in LIVING):
            return True
    return False


FAULT = Fault(
    name="sigkill",
    injected="SIGKILL to a random subset of tokenizer, joiner, trainer, worker and sampler, at random times",
    promise="each session is joined and learned from once, each request is answered, the weights are the same bits",
    run=run,
    in_short=True,
)
