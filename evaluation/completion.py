"""When a session was complete: the moment at which the last event that it waited for had been produced.

A session waits by design. Its exposures close when the watermark passes their feedback window, the session with its
last place or after a gap without a further exposure; and the watermark moves with the events of both inputs. So by
wall clock a session is complete when somebody has produced the event that moves the watermark far enough. Before that
no joiner could have published it, whatever it is made of; from there on all that passes is the system's doing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from onerec.settings import JoinerSettings
from schemas.records import ClosedBy, Session
from schemas.topics import ACTIONS, IMPRESSIONS

Longs = npt.NDArray[np.int64]
INPUTS = (IMPRESSIONS, ACTIONS)


def due_ms(session: Session, joiner: JoinerSettings) -> int | None:
    """The event time that both inputs must reach before this session closes; None where a wall clock closed it."""
    if session.closed_by is ClosedBy.IDLE:
        return None
    wait_ms = joiner.feedback_window_ms
    if session.closed_by is ClosedBy.GAP:
        wait_ms = max(wait_ms, joiner.session_gap_ms)
    return session.items[-1].time_ms + wait_ms + joiner.allowed_lateness_ms


@dataclass(slots=True)
class InputClock:
    """When which event time was reached, by partition of both inputs."""

    _events: dict[tuple[str, int], list[tuple[int, int, int]]] = field(default_factory=dict)

    def add(self, topic: str, place: tuple[int, int], time_ms: int, produced_ms: int) -> None:
        """An event of `topic` at (partition, offset), with its event time and the wall clock of its producer."""
        partition, offset = place
        self._events.setdefault((topic, partition), []).append((offset, time_ms, produced_ms))

    def curves(self) -> Mapping[tuple[str, int], tuple[Longs, Longs]]:
        """By topic and partition the newest event time and the newest wall clock after each record."""
        found = {}
        for key, events in self._events.items():
            columns = np.array(sorted(events), dtype=np.int64)
            found[key] = np.maximum.accumulate(columns[:, 1]), np.maximum.accumulate(columns[:, 2])
        return found

    def reached_ms(self, partitions: Longs, due: Longs) -> Longs:
        """[S] the wall clock at which both inputs had been produced up to `due` [S]; -1 where one never was."""
        curves = self.curves()
        reached = np.zeros(len(due), np.int64)
        for topic in INPUTS:
            for partition in np.unique(partitions):
                mine = partitions == partition
                times_ms, produced_ms = curves.get((topic.name, int(partition)), (np.empty(0), np.empty(0)))
                at = np.searchsorted(times_ms, due[mine])
                known = np.append(produced_ms, -1)[at].astype(np.int64)
                reached[mine] = np.where((known < 0) | (reached[mine] < 0), -1, np.maximum(reached[mine], known))
        return reached
