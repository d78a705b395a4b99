"""The same work for one trial after the other, in this process or side by side in several."""

from __future__ import annotations

import functools
import pickle
import tempfile
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import torch

from evaluation.devices import use
from onerec.service import configure_logging

Trial = TypeVar("Trial")
Figures = dict[str, Any]
Work = Callable[[Trial, Any], Figures]


def each(
    work: Work[Trial], trials: Sequence[Trial], bench: object, device: torch.device, processes: int
) -> Iterator[tuple[Trial, Figures]]:
    """What `work(trial, bench)` gives for each, as it comes. `bench` is pickled once, for all processes."""
    if processes == 1:
        use(device)
        yield from ((trial, work(trial, bench)) for trial in trials)
        return
    with tempfile.NamedTemporaryFile(suffix=".pickle") as file:
        pickle.dump(bench, file)
        file.flush()
        with get_context("spawn").Pool(processes) as pool:  # CUDA does not survive a fork
            yield from pool.imap_unordered(functools.partial(_try, work, file.name, device), trials)


def _try(work: Work[Trial], path: str, device: torch.device, trial: Trial) -> tuple[Trial, Figures]:
    return trial, work(trial, _bench(path, device))


@functools.cache
def _bench(path: str, device: torch.device) -> Any:
    """Before the first trial of a process."""
    configure_logging("evaluation")
    use(device)
    return pickle.loads(Path(path).read_bytes())  # noqa: S301 - from the process before
