"""A call that never comes back ends the process, with a sentence; one that does changes nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from onerec.kafka.watchdog import comes_back

ROOT = Path(__file__).parents[2]
STUCK = """
import sys, time
from onerec.kafka.watchdog import comes_back
with comes_back("a commit", float(sys.argv[1])):
    time.sleep(float(sys.argv[2]))
"""


def test_a_stuck_process_ends_and_says_why() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STUCK, "0.2", "600"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert "a commit has not come back within 0.2 s" in done.stderr
    assert "start it again" in done.stderr


def test_a_call_that_comes_back_or_fails_is_left_alone() -> None:
    ends = f"{STUCK}\ntime.sleep(3.0)\nprint('alive')"  # a busy machine may stand still for a second
    done = subprocess.run(
        [sys.executable, "-c", ends, "2.0", "0"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr
    with pytest.raises(ValueError, match="no"), comes_back("a commit", 60.0):
        raise ValueError("no")
