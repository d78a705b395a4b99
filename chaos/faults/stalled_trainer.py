"""A trainer is stopped, another takes over on its checkpoints, then the first wakes up: a zombie to be fenced."""

from __future__ import annotations

import signal
import time
from dataclasses import replace

from chaos.fault import Context, Fault, Outcome
from chaos.system import TRAINER, System
from onerec.errors import ExitCode

STALL_S = 14.0
WORK_S = 5.0
FENCED_TIMEOUT_S = 60.0


def run(context: Context) -> Outcome:
    """The zombie sees at its next version that the journal is not its own any more, and ends with code 4."""
    with context.system() as system:
        with system.feeding():
            system.tend(WORK_S + context.rng.uniform(0.0, 1.0))
            system.pause(TRAINER)
            context.say(f"the trainer sleeps for {STALL_S:.0f} s")
            second = system.start_second_trainer()
            system.wait_ready(second)
            before = system.progress.output()["steps"]
            system.tend(STALL_S)
            steps = system.progress.output()["steps"] - before
            code = wake_up(system, TRAINER)
            system.tend(WORK_S)
        seen = f"{steps} steps by the second trainer; the first woke up and ended with code {code}"
        outcome = context.judge(system, seen=seen, vacuous=not steps)
        return outcome if code == ExitCode.CHECK_FAILED else replace(outcome, identical=False)


def wake_up(system: System, name: str) -> int | None:
    """Let it go on and wait for its end; its exit code, None where it goes on for ever."""
    zombie = system.supervisor.services.pop(name)  # from here on nobody starts it again
    assert zombie.process is not None
    zombie.process.send_signal(signal.SIGCONT)
    deadline_s = time.monotonic() + FENCED_TIMEOUT_S
    while zombie.running and time.monotonic() < deadline_s:
        system.tend(0.1)
    if zombie.running:
        zombie.process.kill()
        zombie.process.wait()
        return None
    return zombie.process.returncode


FAULT = Fault(
    name="stalled-trainer",
    injected="SIGSTOP of the trainer, a second one starts on its checkpoints, then SIGCONT",
    promise="the second goes on bit for bit; the zombie's entries are void and it ends with code 4",
    run=run,
)
