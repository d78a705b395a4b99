"""What a long run uses, looked at every few seconds: each process's memory, files and threads, and each folder's size.

Every look is a line of JSON, so that a run that was cut short, or one of yesterday, can be judged too.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from onerec.metrics import Samples as Scraped

MB = 1e6


@dataclass(frozen=True, slots=True)
class ProcessSample:
    """One process at one moment. `life` counts its starts from 0; `age_s` is since the last of them."""

    service: str
    life: int
    at_s: float
    age_s: float
    resident_bytes: int
    cached_bytes: int
    """Of the resident memory, RocksDB's block cache, which fills up to its bound for many minutes."""
    descriptors: int
    threads: int
    series: int
    """Time series on its metrics endpoint; 0 where it did not answer."""
    used_bytes: int = 0
    """Of the heap, what is in use; 0 where it is not told."""


@dataclass(frozen=True, slots=True)
class FolderSample:
    """One folder at one moment."""

    folder: str
    at_s: float
    size_bytes: int
    files: int


@dataclass(frozen=True, slots=True)
class Samples:
    """All looks of a run, in the order of time."""

    processes: tuple[ProcessSample, ...]
    folders: tuple[FolderSample, ...]

    @classmethod
    def read(cls, path: Path) -> Samples:
        """The looks in a file that an `Observer` wrote; a torn last line is left out."""
        rows = list(_rows(path))
        return cls(
            tuple(ProcessSample(**row) for row in rows if "service" in row),
            tuple(FolderSample(**row) for row in rows if "folder" in row),
        )


class Observer:
    """Looks at processes and folders and appends what it sees to a file."""

    def __init__(self, path: Path, folders: Mapping[str, Path]) -> None:
        """Times count from now."""
        self._started_s = time.monotonic()
        self._folders = dict(folders)
        self._lives: dict[str, tuple[int, int]] = {}  # service: process id, life
        self._file = path.open("w", encoding="utf-8")

    def look(self, processes: Mapping[int, str], metrics: Scraped) -> None:
        """Take a sample of each process (name by process id) and of each folder."""
        series = _series(metrics)
        at_s = time.monotonic() - self._started_s
        for pid, service in processes.items():
            told = {
                "cached_bytes": int(metrics.get("onerec_state_cache_bytes", job=service)),
                "used_bytes": int(metrics.get("onerec_heap_used_bytes", job=service)),
                "series": series[service],
            }
            try:
                self._write(self._process(pid, service, at_s, told))
            except psutil.NoSuchProcess:  # it is being restarted
                continue
        for name, folder in self._folders.items():
            self._write(FolderSample(name, at_s, *usage_of(folder)))
        self._file.flush()

    def close(self) -> None:
        """The file is complete."""
        self._file.close()

    def _process(self, pid: int, service: str, at_s: float, told: Mapping[str, int]) -> ProcessSample:
        process = psutil.Process(pid)
        with process.oneshot():
            known, life = self._lives.get(service, (pid, 0))
            self._lives[service] = (pid, life + (known != pid))
            return ProcessSample(
                service=service,
                life=self._lives[service][1],
                at_s=at_s,
                age_s=time.time() - process.create_time(),
                resident_bytes=process.memory_info().rss,
                descriptors=process.num_fds(),
                threads=process.num_threads(),
                **told,
            )

    def _write(self, sample: ProcessSample | FolderSample) -> None:
        self._file.write(json.dumps(asdict(sample)) + "\n")


def _series(metrics: Scraped) -> Counter[str]:
    """How many time series each service shows."""
    return Counter(dict(labels)["job"] for values in metrics.values.values() for labels in values)


def usage_of(folder: Path) -> tuple[int, int]:
    """Bytes and number of the files below a folder; files that vanish meanwhile are not counted."""
    size_bytes = files = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                size_bytes += 512 * (Path(parent) / name).stat().st_blocks  # as allocated: some files have holes
            except FileNotFoundError:
                continue
            files += 1
    return size_bytes, files


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return
