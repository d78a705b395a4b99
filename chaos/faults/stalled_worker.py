"""A worker is stopped for longer than its session and its poll interval; then it wakes up."""

from __future__ import annotations

from chaos.fault import Context, Fault, Outcome
from chaos.stall import stall_by_turns
from chaos.system import System, worker

STALL_S = 14.0
"""More than session (6 s) and poll interval (10 s)."""


def run(context: Context) -> Outcome:
    """The other one answers for it."""
    return stall_by_turns(context, worker, System.start_worker, stall_s=STALL_S, output="answers")


FAULT = Fault(
    name="stalled-worker",
    injected="SIGSTOP of one of two workers past session and poll interval, then SIGCONT",
    promise="the other answers its requests; no request stays without an answer",
    run=run,
)
