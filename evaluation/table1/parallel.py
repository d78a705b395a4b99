"""Jobs one after the other, or side by side in processes, until they are done or time is up.

A tiny model leaves most of a GPU, and all but one core, idle: several processes share it. What is finished is a file,
so a run that ends early, for whatever reason, is continued by the next.
"""

from __future__ import annotations

import logging
import pickle
import tempfile
import time
from contextlib import suppress
from multiprocessing import connection, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import torch

from evaluation.devices import use
from evaluation.table1.jobs import Bench, Job, apart, do
from onerec.errors import CheckFailedError
from onerec.service import configure_logging

LOG = logging.getLogger(__name__)
END_S = 10.0
"""How long a process may take to end by itself."""


class Worker(NamedTuple):
    """A process, and the pipe that brings it jobs and brings back that they are done."""

    process: BaseProcess
    pipe: connection.Connection


def one_by_one(jobs: list[Job], bench: Bench, end_s: float | None) -> None:
    """In this process; no job begins after `end_s` of the monotonic clock."""
    for number, job in enumerate(jobs):
        if end_s is not None and time.monotonic() >= end_s:
            _left(jobs[number:])
            return
        do(job, bench)


def side_by_side(jobs: list[Job], bench: Bench, processes: int, end_s: float | None) -> None:
    """In so many processes, which are ended at `end_s` of the monotonic clock whatever they do.

    Raises CheckFailedError for jobs that failed, after all others.
    """
    with tempfile.NamedTemporaryFile(suffix=".pickle") as file:
        pickle.dump(bench, file)  # once: a process that is started reads it by itself
        file.flush()
        crew = _Crew(apart(jobs, bench.place), bench.place, Path(file.name), processes)
        try:
            crew.work(end_s)
        finally:
            crew.end()
    if crew.failed:
        raise CheckFailedError(
            f"These failed: {'; '.join(crew.failed)}.", "See the log; a second run tries them again."
        )


class _Crew:
    """Processes that are given jobs. One whose job failed is replaced: a GPU's errors outlast what made them.

    A job that failed is tried once more when all others have begun: memory that was short may be there by then.
    """

    def __init__(self, jobs: list[Job], place: Path, bench: Path, processes: int) -> None:
        self._waiting, self._place, self._bench, self._processes = jobs, place, bench, processes
        self._free, self._busy = list[Worker](), dict[connection.Connection, tuple[Worker, Job]]()
        self._again = list[Job]()
        self.failed: list[str] = []

    def work(self, end_s: float | None) -> None:
        """Until all is done or time is up."""
        while self._waiting or self._busy:
            self._give()
            left_s = None if end_s is None else max(0.0, end_s - time.monotonic())
            told = connection.wait(list(self._busy), left_s)
            for pipe in told:
                assert isinstance(pipe, connection.Connection)
                self._take(*self._busy.pop(pipe))
            if not told:
                _left([*(job for _, job in self._busy.values()), *self._waiting])
                return

    def end(self) -> None:
        """No process is left behind; those that work still are ended."""
        for worker in self._free:
            worker.pipe.close()
        for worker, _ in self._busy.values():
            worker.process.terminate()
        for worker in [*self._free, *(worker for worker, _ in self._busy.values())]:
            worker.process.join(END_S)
            worker.process.kill()

    def _give(self) -> None:
        """Jobs that wait for no other job's model; where none runs that could make it, for none at all."""
        unfinished = [*self._waiting, *(job for _, job in self._busy.values())]
        coming = {job.leaves for job in unfinished if job.leaves and not (self._place / job.leaves).is_file()}
        ready = [job for job in self._waiting if not job.needs & coming]
        for job in ready[: self._processes - len(self._busy)]:
            worker = self._free.pop() if self._free else _start(self._bench)
            self._waiting.remove(job)
            self._busy[worker.pipe] = worker, job
            with suppress(OSError):  # a process that is gone is seen when it is waited for
                worker.pipe.send(job)

    def _take(self, worker: Worker, job: Job) -> None:
        try:
            worker.pipe.recv()
        except (EOFError, OSError):
            again = job not in self._again
            LOG.error("%s failed%s", job.name, ": once more, later" if again else " again")
            if again:
                self._again.append(job)
                self._waiting.append(job)
            else:
                self.failed.append(job.name)
            worker.process.join()
        else:
            self._free.append(worker)


def _start(bench: Path) -> Worker:
    context = get_context("spawn")  # CUDA does not survive a fork
    near, far = context.Pipe()
    process = context.Process(target=_serve, args=(bench, far), daemon=True)
    process.start()
    far.close()  # so that the end of the process is the end of the pipe
    return Worker(process, near)


def _serve(path: Path, pipe: connection.Connection) -> None:
    """Do jobs until the pipe is closed, or until one fails."""
    configure_logging("evaluation")
    bench: Bench = pickle.loads(path.read_bytes())  # noqa: S301 - written by the process that started this one
    use(bench.device)
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        assert isinstance(job, Job)
        LOG.info("%s: begins", job.name)
        do(job, bench)
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()  # others share the memory
        pipe.send(None)


def _left(jobs: list[Job]) -> None:
    LOG.warning("time is up; left to a later run: %s", "; ".join(job.name for job in jobs))
