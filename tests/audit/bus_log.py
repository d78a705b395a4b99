"""The topics of a bus in memory, as the audit reads them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from audit.auditor import audit_log
from audit.findings import Findings
from onerec.settings import JoinerSettings, KafkaSettings, Settings, StreamSettings
from schemas.topics import Topic
from tests.recovery.bus import Bus, Message


class BusLog:
    """Stands in for `audit.log.Log`."""

    def __init__(self, bus: Bus, *, answered: bool) -> None:
        """`answered`: whether the worker has committed all requests."""
        self._bus = bus
        self._answered = answered

    def partitions(self, topic: Topic) -> list[int]:
        return sorted(number for name, number in self._bus.logs if name == topic.name)

    def bounds(self, *topics: Topic) -> dict[tuple[str, int], tuple[int, int]]:
        parts = [(topic.name, n) for topic in topics for n in self.partitions(topic)]
        return {part: (0, len(self._bus.log(part))) for part in parts}

    def messages(self, topic: Topic, partition: int, bounds: tuple[int, int]) -> Iterator[Message]:
        part = (topic.name, partition)
        for offset in range(*bounds):
            entry = self._bus.log(part)[offset]
            if self._bus.visible(entry):
                yield Message(part, offset, entry)

    def committed(self, group: str, topic: Topic) -> dict[int, int]:
        if group != "joiner":
            return {n: len(self._bus.log((topic.name, n))) * self._answered for n in self.partitions(topic)}
        return {n: self._bus.offsets.get((topic.name, n), 0) for n in self.partitions(topic)}


@cache
def _settings(joiner: JoinerSettings) -> Settings:
    """Made once: it takes longer than to audit a few events."""
    return Settings(kafka=KafkaSettings(), stream=StreamSettings(joiner=joiner))


def audit_bus(bus: Bus, joiner: JoinerSettings, *, answered: bool = False, **options: Any) -> Findings:
    """Audit what is on the bus."""
    settings = _settings(joiner)
    chosen = {"broker_repeats_allowed": False, "first": 5} | options
    return audit_log(BusLog(bus, answered=answered), settings, **chosen)  # type: ignore[arg-type]
