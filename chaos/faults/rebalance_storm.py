"""Workers and joiners join and leave their groups all the time, some in order and some by SIGKILL."""

from __future__ import annotations

from collections import Counter

from chaos.fault import Context, Fault, Outcome, needs_exactly_once
from chaos.system import joiner, worker

MOVES_LONG, MOVES_SHORT = 16, 4
"""Half of them by joiners, half by workers."""
LEAST, MOST = 2, 3
LONGEST_PAUSE_S = 6.0
KILLED_SHARE = 0.3
DYNAMIC = {"ONEREC_STREAM__JOINER__STATIC_MEMBER": "false"}
"""Who leaves for good gives its partitions back at once."""


def run(context: Context) -> Outcome:
    """LEAST to MOST of each kind at any time, and any of them may be the one that leaves."""
    moves: Counter[str] = Counter()
    kinds = [joiner, worker] * ((MOVES_LONG if context.long else MOVES_SHORT) // 2)
    context.rng.shuffle(kinds)
    with context.system(environment=DYNAMIC) as system:
        start = {joiner: system.start_joiner, worker: system.start_worker}
        running = {kind: set(range(LEAST)) for kind in start}
        system.wait_ready(*(start[kind](number) for kind in start for number in range(1, LEAST)))
        with system.feeding():
            for kind in kinds:
                system.tend(context.rng.uniform(0.5, LONGEST_PAUSE_S))
                there = running[kind]
                if len(there) == LEAST or (len(there) < MOST and context.rng.random() < 0.5):
                    number = min(set(range(MOST)) - there)
                    start[kind](number)
                    there.add(number)
                    moves["joined"] += 1
                    context.say(f"{kind(number)} joins")
                else:
                    number = context.rng.choice(sorted(there))
                    kill = context.rng.random() < KILLED_SHARE
                    if kill:
                        moves["killed"] += system.kill([kind(number)])
                    system.stop(kind(number))
                    there.discard(number)
                    moves["left"] += 1
                    context.say(f"{kind(number)} {'is killed' if kill else 'leaves'}")
            system.tend(LONGEST_PAUSE_S)
        told = ", ".join(f"{moves[what]} {what}" for what in ("joined", "left", "killed"))
        return context.judge(system, kills=moves["killed"], seen=f"group members: {told}")


FAULT = Fault(
    name="rebalance-storm",
    injected=f"joiners and workers join, leave by SIGTERM and are killed, {LEAST} or {MOST} of each at any time",
    promise="every partition goes on where its last owner committed: nothing lost, nothing twice",
    run=run,
    missing=needs_exactly_once,
)
