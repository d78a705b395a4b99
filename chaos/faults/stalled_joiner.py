"""A joiner is stopped for longer than its session, its poll interval and its transaction; then it wakes up."""

from __future__ import annotations

from chaos.fault import Context, Fault, Outcome, needs_exactly_once
from chaos.stall import stall_by_turns
from chaos.system import System, joiner

STALL_S = 20.0
"""More than session (6 s), poll interval (10 s), and the transaction's timeout (15 s) with a second to notice."""


def run(context: Context) -> Outcome:
    """What the sleeper has not committed is the other one's to join."""
    return stall_by_turns(context, joiner, System.start_joiner, stall_s=STALL_S, output="sessions")


FAULT = Fault(
    name="stalled-joiner",
    injected="SIGSTOP of one of two joiners past session, poll interval and transaction timeout, then SIGCONT",
    promise="the other takes its partitions; the zombie's transaction is refused and it begins anew",
    run=run,
    missing=needs_exactly_once,
)
