"""Workers and joiners join and leave their groups all the time, some in order and some by SIGKILL."""

from __future__ import annotations

from chaos.fault import Context, Fault, Outcome, needs_exactly_once
from chaos.system import joiner, worker

MOVES_LONG, MOVES_SHORT = 16, 4
MOST = 3
LONGEST_PAUSE_S = 6.0
DYNAMIC = {"ONEREC_STREAM__JOINER__STATIC_MEMBER": "false"}
"""Who leaves for good gives its partitions back at once."""


def run(context: Context) -> Outcome:
    """One to MOST of each kind at any time."""
    moves = {"joined": 0, "left": 0, "killed": 0}
    with context.system(environment=DYNAMIC) as system:
        start = {joiner: system.start_joiner, worker: system.start_worker}
        running = {joiner: {0}, worker: {0}}
        with system.feeding():
            for _ in range(MOVES_LONG if context.long else MOVES_SHORT):
                system.tend(context.rng.uniform(0.5, LONGEST_PAUSE_S))
                kind = context.rng.choice((joiner, worker))
                there = running[kind]
                if len(there) == 1 or (len(there) < MOST and context.rng.random() < 0.5):
                    number = min(set(range(MOST)) - there)
                    start[kind](number)
                    there.add(number)
                    moves["joined"] += 1
                    context.say(f"{kind(number)} joins")
                else:
                    number = context.rng.choice(sorted(there))
                    kill = context.rng.random() < 0.3
                    if kill:
                        moves["killed"] += system.kill([kind(number)])
                    system.stop(kind(number))
                    there.discard(number)
                    moves["left"] += 1
                    context.say(f"{kind(number)} {'is killed' if kill else 'leaves'}")
            system.tend(LONGEST_PAUSE_S)
        told = ", ".join(f"{count} {what}" for what, count in moves.items())
        return context.judge(system, kills=moves["killed"], seen=f"group members: {told}")


FAULT = Fault(
    name="rebalance-storm",
    injected="joiners and workers join, leave by SIGTERM and are killed, one to three of each at any time",
    promise="every partition goes on where its last owner committed: nothing lost, nothing twice",
    run=run,
    missing=needs_exactly_once,
)
