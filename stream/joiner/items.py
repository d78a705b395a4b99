"""Which items exist: those that have a semantic id."""

from __future__ import annotations

from typing import Protocol

from onerec.kafka.dead_letters import DeadLetters
from onerec.kafka.follow import TopicFollower
from onerec.kafka.reader import Received
from onerec.settings import KafkaSettings
from schemas.topics import ITEM_TOKENS
from stream.joiner.joining import Events

START_TIMEOUT_S = 120.0
CATCH_UP_TIMEOUT_S = 30.0


class KnownItems(Protocol):
    """The items that events may name."""

    def unknown(self, events: Events) -> set[int]:
        """Those that these events name and that do not exist, as far as is known yet."""

    def catch_up(self) -> None:
        """Learn of all items as of now."""

    def poll(self) -> None:
        """Learn of what is there already, without waiting."""

    def close(self) -> None:
        """Learn of nothing more."""


class ItemsWithTokens:
    """Follows topic item-tokens."""

    def __init__(self, kafka: KafkaSettings, refused: DeadLetters) -> None:
        """Read the topic to its end. Raises DependencyMissingError for no broker or topic."""
        self.ids: set[int] = set()
        self._follower = TopicFollower(kafka, ITEM_TOKENS, self._learn, service="joiner", refused=refused)
        self._follower.catch_up(START_TIMEOUT_S)

    def unknown(self, events: Events) -> set[int]:
        """See `KnownItems`."""
        return events.items() - self.ids

    def catch_up(self) -> None:
        """Read on to the end as of now. Raises DependencyMissingError where that takes too long."""
        self._follower.catch_up(CATCH_UP_TIMEOUT_S)

    def poll(self) -> None:
        """Read what has come."""
        self._follower.poll(0.0)

    def close(self) -> None:
        """Leave the broker."""
        self._follower.close()

    def _learn(self, received: Received) -> None:
        self.ids.add(received.record.item_id)


class AnyItem:
    """No item is unknown: for systems that do not publish their items first."""

    def unknown(self, _events: Events) -> set[int]:
        """None is."""
        return set()

    def catch_up(self) -> None:
        """There is nothing to learn."""

    def poll(self) -> None:
        """There is nothing to learn."""

    def close(self) -> None:
        """There is nothing to close."""
