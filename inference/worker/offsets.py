"""Which requests have an answer on the broker: what may be committed."""

from __future__ import annotations

from collections.abc import Iterable


class Offsets:
    """By partition the requests in flight; what lies before the first of them may be committed."""

    def __init__(self) -> None:
        self._in_flight: dict[int, set[int]] = {}
        self._next: dict[int, int] = {}
        self._told: dict[int, int] = {}

    def received(self, partition: int, offset: int) -> None:
        """A request was read."""
        self._in_flight.setdefault(partition, set()).add(offset)
        self._next[partition] = max(offset + 1, self._next.get(partition, 0))

    def answered(self, partition: int, offset: int) -> None:
        """Its answer is on the broker."""
        self._in_flight.get(partition, set()).discard(offset)

    def in_flight(self) -> int:
        """How many requests have been read and have no answer on the broker."""
        return sum(len(offsets) for offsets in self._in_flight.values())

    def answered_up_to(self) -> dict[int, int]:
        """By partition the offset to commit."""
        return {p: min(self._in_flight[p], default=at) for p, at in self._next.items()}

    def moved(self) -> dict[int, int]:
        """`answered_up_to` of the partitions where it has moved since the last call."""
        moved = {p: at for p, at in self.answered_up_to().items() if at > self._told.get(p, -1)}
        self._told |= moved
        return moved

    def forget(self, partitions: Iterable[int]) -> None:
        """These partitions belong to another worker now."""
        for partition in partitions:
            for by_partition in (self._in_flight, self._next, self._told):
                by_partition.pop(partition, None)
