"""Records of one partition on disk, to be read again by user: 40 bytes a record stay in memory."""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterable, Iterator

import numpy as np
from confluent_kafka import Message

from audit.by_user import ByUser

Spooled = tuple[int, bytes, int]
"""Offset, value, mark."""


class Spool:
    """Values by user, in the order of their offsets. A context manager; the file goes with it."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="onerec-audit-")  # noqa: SIM115 - closed by `close`
        self._index = array("q")
        self._size = 0
        self._rows = np.empty((0, 5), np.int64)
        self._by_user = ByUser(self._rows[:, 0])

    def add(self, user_id: int, offset: int, value: bytes, mark: int = 0) -> None:
        """Keep a value."""
        self._file.write(value)
        self._index.extend((user_id, offset, self._size, len(value), mark))
        self._size += len(value)

    def seal(self) -> set[int]:
        """No more is added; the users."""
        self._file.flush()
        self._rows = np.frombuffer(self._index, np.int64).reshape(-1, 5)
        self._by_user = ByUser(self._rows[:, 0])
        return self._by_user.users

    def of(self, user_id: int) -> Iterator[Spooled]:
        """The values of a user."""
        for _, offset, at, size, mark in self._rows[self._by_user.rows(user_id)].tolist():
            self._file.seek(at)
            yield offset, self._file.read(size), mark

    def close(self) -> None:
        """Delete the file."""
        self._file.close()


def user_of(message: Message) -> int | None:
    """The user that a record's key names; None where it names none."""
    key = message.key()
    return int(key) if key is not None and len(key) < 20 and key.isdigit() else None


def places(messages: Iterable[Message]) -> Iterator[tuple[int, Message]]:
    """Messages with their offsets."""
    for message in messages:
        yield message.offset() or 0, message
