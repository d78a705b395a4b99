"""What dead-letters says was refused, by service and by the place where the record stood."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import NamedTuple
from zlib import crc32

import numpy as np
from confluent_kafka import Message

from audit.findings import Findings, Kind
from schemas.codec import Codec, DecodeError
from schemas.reasons import Reason
from schemas.records import DeadLetter
from schemas.topics import DEAD_LETTERS

REASONS = tuple(Reason)
NUMBERS = {str(reason): number for number, reason in enumerate(REASONS)}
LINE = "dead letters"
Source = tuple[str, str, int]
"""Service, topic without the prefix, partition."""


class Refusal(NamedTuple):
    """One dead letter: why, where in dead-letters, and the checksum and number of the bytes that it holds."""

    reason: Reason
    letter: int
    checksum: int
    size: int
    """Negative where it holds only the beginning of the record."""

    def holds(self, value: bytes) -> bool:
        """Whether these are the bytes that were refused."""
        whole = self.size == len(value)
        return (whole or self.size < 0) and self.checksum == crc32(value[: abs(self.size)])


class Refusals:
    """All dead letters, 40 bytes each."""

    def __init__(self) -> None:
        self._of: dict[Source, array[int]] = {}

    def read(self, messages: Iterable[Message], codec: Codec, findings: Findings) -> None:
        """Take in topic dead-letters."""
        line = findings.line(LINE)
        for message in messages:
            line.found += 1
            offset = message.offset() or 0
            try:
                letter: DeadLetter = codec.decode(message.value())
            except DecodeError as error:
                findings.add(LINE, Kind.WRONG, (DEAD_LETTERS.name, 0, offset), str(error))
                continue
            if letter.reason == Reason.REPLAYED:
                continue  # a mark that an earlier letter was put back
            if letter.reason not in NUMBERS:
                detail = f"reason {letter.reason!r} is none"
                findings.add(LINE, Kind.WRONG, (DEAD_LETTERS.name, 0, offset), detail)
                continue
            kept = self._of.setdefault((letter.service, letter.topic, letter.partition), array("q"))
            value = letter.value or b""
            size = -len(value) if letter.truncated else len(value)
            kept.extend((letter.offset, NUMBERS[letter.reason], offset, crc32(value), size))

    def of(self, service: str, topic: str, partition: int) -> dict[int, list[Refusal]]:
        """By offset what the service refused of a partition; more than one where it was refused more than once."""
        found: dict[int, list[Refusal]] = {}
        kept = iter(self._of.get((service, topic, partition), array("q")))
        for offset, reason, *letter in zip(kept, kept, kept, kept, kept, strict=True):
            found.setdefault(offset, []).append(Refusal(REASONS[reason], *letter))
        return found

    def offsets(self, service: str, topic: str, partition: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """The offsets that the service refused, sorted, each once."""
        kept = np.frombuffer(self._of.get((service, topic, partition), array("q")), np.int64).reshape(-1, 5)
        return np.unique(kept[:, 0])
