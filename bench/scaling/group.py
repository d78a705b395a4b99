"""How a group of processes did: its rate, what processor time it took, and the share of linear that the cores allow."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import psutil


@dataclass(frozen=True, slots=True)
class Group:
    """So many processes of one kind in one consumer group."""

    processes: int
    per_s: float
    """Requests answered, or events joined."""
    cpu_ms_each: float
    """Processor time of these processes for one of them: what a further core would bring."""
    used_cores: float
    """Of the machine by these processes; broker and clients take the rest."""


def processor_s(pids: Iterable[int]) -> float:
    """Processor seconds that processes have used, with their threads. One that has ended counts nothing."""
    used = 0.0
    for pid in pids:
        try:
            times = psutil.Process(pid).cpu_times()
        except psutil.NoSuchProcess:
            continue
        used += times.user + times.system
    return used


def table(groups: Sequence[Group], cores: int | None = None) -> list[dict[str, Any]]:
    """One object a group, with its shares of linear growth from the first.

    `of_linear` is the rate over that of as many processes as there are cores, no more: what two cores allow.
    `of_linear_cpu` is the processor time of one request or event, of one process over that of many: what is left of
    linear where each has a core of its own, as far as the broker follows.
    """
    allowed = cores or os.cpu_count() or 1
    first = groups[0]
    return [
        {
            "processes": group.processes,
            "per_s": round(group.per_s, 1),
            "of_linear": round(group.per_s / first.per_s * first.processes / min(group.processes, allowed), 3),
            "cpu_ms_each": round(group.cpu_ms_each, 4),
            "of_linear_cpu": round(first.cpu_ms_each / group.cpu_ms_each, 3) if group.cpu_ms_each else None,
            "used_cores": round(group.used_cores, 2),
        }
        for group in groups
    ]
