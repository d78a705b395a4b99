"""A joiner is stopped, another process of the same instance takes its place, then the first wakes up: a zombie."""

from __future__ import annotations

from chaos.fault import Context, Fault, Outcome, needs_exactly_once
from chaos.faults.stalled_trainer import wake_up
from chaos.system import joiner
from onerec.errors import ExitCode

STALL_S = 20.0
"""More than session (6 s), poll interval (10 s), and the transaction's timeout (15 s) with a second to notice."""
WORK_S = 5.0
SUCCESSOR = 9


def run(context: Context) -> Outcome:
    """Both use one transactional id and one static membership, as after a restart on another machine."""
    with context.system() as system:
        with system.feeding():
            system.tend(WORK_S + context.rng.uniform(0.0, 1.0))
            system.pause(joiner(0))
            context.say(f"the joiner sleeps for at least {STALL_S:.0f} s")
            second = system.start_joiner(SUCCESSOR, ONEREC_STREAM__JOINER__INSTANCE="0")
            system.wait_ready(second)
            before = system.progress.output()["sessions"]
            system.tend(STALL_S)
            sessions = system.progress.output()["sessions"] - before
            code = wake_up(system, joiner(0))
            system.tend(WORK_S)
        seen = f"{sessions} sessions by the second joiner; the first woke up and ended with code {code}"
        broken = "" if code == ExitCode.CHECK_FAILED else "the zombie was not told"
        return context.judge(system, seen=seen, vacuous=not sessions, broken=broken)


FAULT = Fault(
    name="joiner-zombie",
    injected="SIGSTOP of the joiner past all its timeouts, another process of the same instance starts, then SIGCONT",
    promise="the broker fences the zombie's transaction; it is told that another one runs and ends with code 4",
    run=run,
    missing=needs_exactly_once,
)
