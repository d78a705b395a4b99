"""What every service does around its loop."""

from __future__ import annotations

import subprocess
import sys

SERVICE = """
import gc
from onerec.service import run_service
from onerec.settings import Settings

{before}
def body(stop):
    loaded = len(gc.get_objects())
    assert loaded > 10_000
    stop.ready()
    assert (gc.get_freeze_count() > 0.9 * loaded) == {frozen}, gc.get_freeze_count()
    assert (len(gc.get_objects()) < 0.1 * loaded) == {frozen}
    gc.unfreeze()
    stop.ready()
    assert gc.get_freeze_count() == 0, "once only"

raise SystemExit(run_service("toy", Settings(), body, metrics=False))
"""


def _run(*, before: str, frozen: bool) -> subprocess.CompletedProcess[str]:
    code = SERVICE.format(before=before, frozen=frozen)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)


def test_what_is_loaded_when_a_service_gets_ready_is_not_walked_over_again() -> None:
    """Else a full collection stops a worker for a tenth of a second, whoever waits for an answer."""
    done = _run(before="", frozen=True)
    assert done.returncode == 0, done.stderr


def test_a_service_that_collects_at_its_own_pace_is_left_alone() -> None:
    done = _run(before="gc.disable()", frozen=False)
    assert done.returncode == 0, done.stderr
