"""Looks from outside at how far a system has come, by offsets and ids, and waits until it has done all its work."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from evaluation.feed import Feed
from evaluation.report import TOPICS, Ledger
from onerec.kafka.offsets import committed, end_offsets
from onerec.settings import KafkaSettings
from schemas.topics import ACTIONS, IMPRESSIONS, REQUESTS, Topic

READ_TIMEOUT_S = 120.0
LOOK_EVERY_S = 1.0
CONSUMED = (("joiner", IMPRESSIONS), ("joiner", ACTIONS), ("sampler", REQUESTS), ("worker", REQUESTS))
"""Groups, and the topics that they must have read to the end."""
BEHIND = {"lost": "sessions not learned from", "pairs_lost": "pairs not learned from", "silent": "no answer"}
"""Figures that must be 0, in words."""
LONGEST = 3
"""A drain that moves all the time may take so many times as long as one that does not."""


class Progress:
    """What the topics hold, read on from look to look."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._feed = Feed(kafka, TOPICS)
        self._ledger = Ledger()

    def __enter__(self) -> Self:
        """It has connected already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._feed.close()

    def look(self) -> dict[str, Any]:
        """The report of everything that is there now, see evaluation.report; `silent` requests have no answer."""
        self._feed.read_to_end(self._ledger.take, READ_TIMEOUT_S)
        found = self._ledger.summary()
        found["silent"] = found["unanswered"] - found["overloaded"] - found["refused"]
        return found

    def output(self) -> dict[str, int]:
        """How much has come out of each service so far."""
        found = self.look()
        names = {
            "sessions": "sessions",
            "steps": "steps",
            "versions": "versions_published",
            "answers": "recommendations",
            "pairs": "preference_pairs",
        }
        return {name: int(found[key]) for name, key in names.items()}

    def drain(self, tend: Callable[[], None], timeout_s: float) -> bool:
        """Wait until every input is read, joined, learned and answered, twice in a row.

        Whether that came: False where nothing has moved for `timeout_s`, or there is no end of it for LONGEST times
        that. A busy machine is slow, and no reason to give up.
        """
        begun_s = moved_s = time.monotonic()
        before: tuple[int, ...] = ()
        while True:
            tend()
            found = self.look()
            unread = [self._unread(group, topic) for group, topic in CONSUMED]
            behind = [found[name] for name in BEHIND]
            now = (*unread, *behind, *(found[name] for name in ("sessions", "preference_pairs", "steps")))
            now_s = time.monotonic()
            if now != before:
                before, moved_s = now, now_s
            elif not any(unread) and not any(behind):
                return True
            elif now_s - moved_s > timeout_s:
                return False
            if now_s - begun_s > LONGEST * timeout_s:
                return False
            time.sleep(LOOK_EVERY_S)

    def behind(self) -> list[str]:
        """What has not been done, in words."""
        found = self.look()
        left = [f"{group} has not read {topic.name}" for group, topic in CONSUMED if self._unread(group, topic)]
        return left + [f"{found[name]} {words}" for name, words in BEHIND.items() if found[name]]

    def _unread(self, group: str, topic: Topic) -> int:
        """How many offsets of the topic the group has before it."""
        ends = end_offsets(self._kafka, topic)
        read = committed(self._kafka, group, topic)
        return sum(max(0, end - read[partition]) for partition, end in ends.items())
