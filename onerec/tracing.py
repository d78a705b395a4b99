"""What torch does in a service's turns, as a trace: `onerec demo --profile` asks for it by ONEREC_PROFILE.

Some turns are recorded, once the service has warmed up, and written as a trace for ui.perfetto.dev or chrome://tracing.
Without the variable nothing of it is loaded and a turn costs nothing.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

LOG = logging.getLogger(__name__)
VARIABLE = "ONEREC_PROFILE"
"""Names the folder for traces; unset for none."""
SKIPPED, RECORDED = 20, 20
"""Turns: allocations and compilation of the first ones would hide what the later ones cost."""


class Recording(Protocol):
    """The part of torch.profiler.profile that is used here."""

    def start(self) -> None:
        """Begin."""

    def step(self) -> None:
        """A turn has ended."""

    def stop(self) -> None:
        """End, and write what there is."""


class TurnTrace:
    """Records turns SKIPPED to SKIPPED + RECORDED of one thread. Close it where the thread ends."""

    def __init__(self, name: str) -> None:
        """The file is `<name>.trace.json.gz` in the folder that ONEREC_PROFILE names."""
        folder = os.environ.get(VARIABLE)
        self._left = SKIPPED + RECORDED
        self._recording: Recording | None = None
        if folder:
            self._recording = _recording(Path(folder) / f"{name}.trace.json.gz")
            self._recording.start()

    @contextmanager
    def turn(self, label: str) -> Iterator[None]:
        """One turn, marked by `label` in the trace."""
        if self._recording is None:
            yield
            return
        with _marked(label):
            yield
        self._recording.step()
        self._left -= 1
        if not self._left:
            self.close()

    def close(self) -> None:
        """Write what has been recorded, if that is not done."""
        if self._recording is not None:
            self._recording.stop()
            self._recording = None


def _marked(label: str) -> Any:
    from torch.profiler import record_function  # noqa: PLC0415 - services that are not traced do without

    return record_function(label)


def _recording(file: Path) -> Recording:
    from torch import profiler  # noqa: PLC0415 - services that are not traced do without

    file.parent.mkdir(parents=True, exist_ok=True)

    def written(recorded: Any) -> None:
        recorded.export_chrome_trace(str(file))
        LOG.info("trace: %s", file)

    activities: Any = profiler.supported_activities()  # type: ignore[no-untyped-call]
    wanted: Callable[[int], Any] = profiler.schedule(wait=SKIPPED - 1, warmup=1, active=RECORDED, repeat=1)
    made: Recording = profiler.profile(activities=activities, schedule=wanted, on_trace_ready=written)
    return made
