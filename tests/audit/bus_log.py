"""The topics of a bus in memory, as the audit reads them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from audit.auditor import audit_log
from audit.findings import Findings
from onerec.settings import JoinerSettings, KafkaSettings, Settings, StreamSettings
from schemas.topics import Topic
from tests.stream.joiner.bus import Bus, Message


class BusLog:
    """Stands in for `audit.log.Log`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def partitions(self, topic: Topic) -> list[int]:
        return list(range(self._bus.partitions if topic.by_user else 1))

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
            return dict.fromkeys(self.partitions(topic), 0)
        return {n: self._bus.offsets.get((topic.name, n), 0) for n in self.partitions(topic)}


def audit_bus(bus: Bus, joiner: JoinerSettings, **options: Any) -> Findings:
    """Audit what is on the bus."""
    settings = Settings(kafka=KafkaSettings(partitions=bus.partitions), stream=StreamSettings(joiner=joiner))
    chosen = {"broker_repeats_allowed": False, "first": 5} | options
    return audit_log(BusLog(bus), settings, **chosen)  # type: ignore[arg-type]
