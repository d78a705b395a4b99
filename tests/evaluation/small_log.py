"""A part of the real log."""

from __future__ import annotations

from stream.replay.kuairand import KuaiRand
from stream.replay.log import Exposures, Histories, Items


class SmallLog:
    """The first exposures of the real log with some of its histories."""

    def __init__(self, users: int) -> None:
        self._users = users

    def items(self) -> Items:
        raise NotImplementedError

    def histories(self, last: int) -> Histories:
        every = KuaiRand().histories(last)
        end = every.starts[self._users]
        return Histories(
            every.user_ids[: self._users],
            every.starts[: self._users + 1],
            every.items[:end],
            every.times_ms[:end],
            every.labels[:end],
            every.updated_ms[: self._users],
        )

    def exposures(self) -> Exposures:
        return KuaiRand().exposures()
