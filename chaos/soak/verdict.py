"""What a soak's looks say: does memory grow, do descriptors, threads or time series, do the folders.

The bounds are stated here. A slope breaks its bound where its whole 95 % interval lies above it, and is flat where
none of it does; in between the run was too short or too noisy to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from chaos.soak.observe import MB, FolderSample, ProcessSample, Samples
from chaos.soak.trend import Trend, trend

WARM_UP_S = 240.0
"""The first minutes of a process after each start are left out: torch, the Kafka clients and RocksDB take their memory.
What fills for longer is left out by itself: RocksDB's block cache, which has its bound of 64 MiB."""
MAX_SLOPE_MB_PER_HOUR = 24.0
MAX_MORE = {"descriptors": 16, "threads": 4, "series": 16}
"""How much more of it the last third of a process's life may have than the first third, each after the warm-up."""
MAX_FOLDER_GROWTH = 1.25
"""The most that a folder held in the last third of the run, by the most that it held in the two before."""
MAX_FOLDER_MB = 16.0
"""Growth of so much is allowed in any case: a file that RocksDB has written and not yet merged."""
UNJUDGED_FOLDERS = {"broker log": "topics keep all, for the audit", "service logs": "the operator rotates them"}
UNJUDGED_PROCESSES = {"replay": "ends with each lap", "broker": "not ours"}
FLAT, GROWS, UNCLEAR = "flat", "GROWS", "unclear"
BOUNDED, REPORTED = "bounded", "reported only"


@dataclass(frozen=True, slots=True)
class ProcessFinding:
    """One service over all its lives."""

    service: str
    lives: int
    peak_mb: float
    memory: Trend | None
    """Resident memory less RocksDB's block cache, in MB and MB an hour; None where no life was long enough."""
    used: Trend | None
    """The heap in use less that cache. Not judged: where the memory has a slope and this has none, nothing leaks, but
    what is free lies scattered."""
    more: dict[str, int]
    """By what is counted, the last third of the longest life less the first third."""
    verdict: str


@dataclass(frozen=True, slots=True)
class FolderFinding:
    """One folder; sizes in MB as the most in each third of the run."""

    folder: str
    thirds_mb: tuple[float, float, float]
    files: int
    """The most at any time."""
    verdict: str


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that was judged."""

    processes: tuple[ProcessFinding, ...]
    folders: tuple[FolderFinding, ...]

    @property
    def broken(self) -> list[str]:
        """What breaks its bound."""
        named = [(one.service, one.verdict) for one in self.processes]
        named += [(one.folder, one.verdict) for one in self.folders]
        return [name for name, verdict in named if verdict == GROWS]

    def as_json(self) -> dict[str, Any]:
        """The findings with the bounds."""
        return {
            "bounds": {
                "slope_mb_per_hour": MAX_SLOPE_MB_PER_HOUR,
                "warm_up_s": WARM_UP_S,
                "more": MAX_MORE,
                "folder_growth": MAX_FOLDER_GROWTH,
                "folder_mb": MAX_FOLDER_MB,
            },
            "processes": [asdict(one) for one in self.processes],
            "folders": [asdict(one) for one in self.folders],
            "broken": self.broken,
        }


def judge(samples: Samples) -> Findings:
    """Findings about every process and folder, in the order in which they were first seen."""
    services = dict.fromkeys(sample.service for sample in samples.processes)
    folders = dict.fromkeys(sample.folder for sample in samples.folders)
    return Findings(
        tuple(_process(name, [s for s in samples.processes if s.service == name]) for name in services),
        tuple(_folder(name, [s for s in samples.folders if s.folder == name]) for name in folders),
    )


def _process(service: str, samples: Sequence[ProcessSample]) -> ProcessFinding:
    lives = [[s for s in life if s.age_s >= WARM_UP_S] for life in _lives(samples)]
    memory = trend([([s.at_s for s in life], [_own_mb(s) for s in life]) for life in lives])
    used = trend([([s.at_s for s in life], [_used_mb(s) for s in life]) for life in _told(lives)])
    more = _more(max(lives, key=len))
    return ProcessFinding(
        service=service,
        lives=len(lives),
        peak_mb=max(s.resident_bytes for s in samples) / MB,
        memory=memory,
        used=used,
        more=more,
        verdict=_process_verdict(service, memory, more),
    )


def _told(lives: Sequence[Sequence[ProcessSample]]) -> Iterator[list[ProcessSample]]:
    """What the processes told of their heaps."""
    for life in lives:
        yield [s for s in life if s.used_bytes]


def _used_mb(sample: ProcessSample) -> float:
    return (sample.used_bytes - sample.cached_bytes) / MB


def _own_mb(sample: ProcessSample) -> float:
    return (sample.resident_bytes - sample.cached_bytes) / MB


def _process_verdict(service: str, memory: Trend | None, more: dict[str, int]) -> str:
    if service in UNJUDGED_PROCESSES:
        return REPORTED
    if any(more.get(what, 0) > limit for what, limit in MAX_MORE.items()):
        return GROWS
    if memory is None:
        return UNCLEAR
    if memory.low > MAX_SLOPE_MB_PER_HOUR:
        return GROWS
    return FLAT if memory.high <= MAX_SLOPE_MB_PER_HOUR else UNCLEAR


def _lives(samples: Sequence[ProcessSample]) -> Iterator[list[ProcessSample]]:
    for life in dict.fromkeys(sample.life for sample in samples):
        yield [sample for sample in samples if sample.life == life]


def _more(life: Sequence[ProcessSample]) -> dict[str, int]:
    third = len(life) // 3
    if not third:
        return {}
    return {
        what: round(median(getattr(s, what) for s in life[-third:]) - median(getattr(s, what) for s in life[:third]))
        for what in MAX_MORE
    }


def _folder(name: str, samples: Sequence[FolderSample]) -> FolderFinding:
    third = max(1, len(samples) // 3)
    parts = (samples[:third], samples[third:-third], samples[-third:])
    first, middle, last = (max((s.size_bytes for s in part), default=0) / MB for part in parts)
    if name in UNJUDGED_FOLDERS:
        verdict = REPORTED
    else:
        before = max(first, middle)  # what is cleared away now and then is at its largest in either
        verdict = BOUNDED if last <= max(before * MAX_FOLDER_GROWTH, before + MAX_FOLDER_MB) else GROWS
    return FolderFinding(name, (first, middle, last), max(s.files for s in samples), verdict)
