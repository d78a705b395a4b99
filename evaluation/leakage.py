"""Whether an answer came from weights that had already learned what it was to predict. By offsets, not by time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from schemas.records import ModelVersion
from schemas.topics import SESSIONS

KEEP = 1_000_000
"""Requests remembered; the oldest go first."""


class LeakageCheck:
    """Brings together sessions (which request, at which offset), versions (learned up to where) and answers.

    The three may come in any order; an answer is checked once all are known.
    """

    def __init__(self) -> None:
        self.checked = 0
        self.leaked = 0
        self._learned: dict[int, dict[int, int]] = {}
        self._sessions: dict[int, tuple[int, int]] = {}
        self._answers: dict[int, int] = {}
        self._unknown_versions: dict[int, list[int]] = {}

    @property
    def unchecked(self) -> int:
        """Answers whose version or session has not been seen; a visit without exposures never has one."""
        return len(self._answers)

    def version(self, record: ModelVersion) -> None:
        """A version was published."""
        self._learned[record.version] = learned_sessions(record)
        for request_id in self._unknown_versions.pop(record.version, ()):
            self._check(request_id)

    def session(self, partition: int, offset: int, request_ids: Iterable[int]) -> None:
        """A session lies at this offset; of several with one request the first one counts."""
        for request_id in request_ids:
            if request_id not in self._sessions:
                _remember(self._sessions, request_id, (partition, offset))
                self._check(request_id)

    def answered(self, request_id: int, version: int) -> None:
        """A request was answered with the weights of this version."""
        if request_id not in self._answers:
            _remember(self._answers, request_id, version)
            self._check(request_id)

    def _check(self, request_id: int) -> None:
        version, session = self._answers.get(request_id), self._sessions.get(request_id)
        if version is None or session is None:
            return
        learned = self._learned.get(version)
        if learned is None:
            self._unknown_versions.setdefault(version, []).append(request_id)
            return
        partition, offset = session
        del self._answers[request_id]
        self.checked += 1
        self.leaked += learned.get(partition, 0) > offset


def learned_sessions(version: ModelVersion) -> dict[int, int]:
    """By partition of topic sessions the first offset that the version has not learned."""
    return {place.partition: place.next_offset for place in version.offsets if place.topic == SESSIONS.name}


def _remember(kept: dict[int, Any], request_id: int, value: Any) -> None:
    kept[request_id] = value
    if len(kept) > KEEP:
        del kept[next(iter(kept))]
