"""A signal stops a command also where Python drops the exception that it raises."""

from __future__ import annotations

import subprocess
import sys

SWALLOWS = """
import os, signal, sys, weakref
from pathlib import Path
from onerec.demo.supervisor import Supervisor
from onerec.interrupts import interrupt_on_signals

class Thing:
    pass

interrupt_on_signals()
thing = Thing()
watched = weakref.ref(thing, lambda _: os.kill(os.getpid(), getattr(signal, sys.argv[1])))
del thing  # the callback's exception is printed and forgotten
try:
    Supervisor(Path("."), {}).check()
except KeyboardInterrupt:
    print("stopped")
"""


def test_a_signal_within_a_weak_references_callback_is_not_lost() -> None:
    for name in ("SIGINT", "SIGTERM"):
        done = subprocess.run(
            [sys.executable, "-c", SWALLOWS, name], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.stdout == "stopped\n", done.stderr
        assert "ignored in" in done.stderr
