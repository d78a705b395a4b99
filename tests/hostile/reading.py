"""Runs a kind of hostile input through the real reader, and measures memory."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any, Self

from onerec.kafka import clients
from onerec.kafka.dead_letters import DeadLetters
from onerec.kafka.reader import RecordReader
from onerec.kafka.registry import codec
from onerec.settings import KafkaSettings
from schemas.records import DeadLetter
from schemas.topics import DEAD_LETTERS, ITEMS, Topic
from stream.tokenizer.tokenise import Refusal, values_of
from tests.hostile import records
from tests.recovery.bus import Entry, Message

BATCH = 500
BATCH_BYTES = 32_000_000
KAFKA = KafkaSettings()
WIDTH = 4
"""Of the codebook."""
WARM_UP = 0.2
"""Share of the inputs after which memory is looked at first."""
MOST_KEPT_MB = 64.0
"""What an allocator may keep of a peak; a leak of a hundred bytes a record is beyond it in a run of a million."""


@dataclass
class Outcome:
    """What became of one kind."""

    kind: str
    sent: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    accepted: int = 0
    crashes: list[str] = field(default_factory=list)
    peak_mb: float = 0.0
    """How far resident memory grew while they were read, what made them included."""
    kept_mb: float = 0.0
    """How far it was above, at the end, what it was after the first fifth: what is not given back."""
    seconds: float = 0.0

    def is_complete(self) -> bool:
        """Whether each one was either accepted or refused with a reason, and memory stayed flat."""
        return not self.crashes and self.sent == self.accepted + self.refused.total() and self.kept_mb < MOST_KEPT_MB


class Letters:
    """Takes the place of a producer: encodes letters as it would, and keeps only their reasons."""

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()

    def send(self, topic: Topic, key: bytes | None, letter: DeadLetter) -> None:
        encoded = codec(KAFKA, topic).encode(letter)
        assert topic is DEAD_LETTERS
        assert len(encoded) + len(key or b"") < clients.max_producer_bytes(KAFKA)
        assert letter.detail
        self.reasons[letter.reason] += 1


def messages(kind: str, count: int, seed: int) -> Iterator[list[Message]]:
    """Batches of a kind, bounded in number and in bytes as a consumer's are."""
    random = Random(seed)
    batch: list[Message] = []
    size = 0
    for offset in range(count):
        topic, value = records.KINDS[kind](random)
        key = random.choice((b"7", None, b"", random.randbytes(40)))
        batch.append(Message((clients.topic_name(KAFKA, topic), 0), offset, Entry(key, value, offset)))
        size += len(value or b"")
        if len(batch) == BATCH or size > BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def read(kind: str, count: int, seed: int = 0) -> Outcome:
    """One kind through the reader that every service has, items also through the tokenizer's own check."""
    letters = Letters()
    refused = DeadLetters(KAFKA, "hostile", writer=letters)  # type: ignore[arg-type]
    reader = RecordReader(None, records.WITH_RECORDS, KAFKA, refused=refused)  # type: ignore[arg-type]
    outcome = Outcome(kind)
    with measured(outcome) as measure:
        for batch in messages(kind, count, seed):
            outcome.sent += len(batch)
            measure.look(outcome.sent / count)
            for received in reader.received(batch):  # type: ignore[arg-type]
                refusal = values_of(received.record, WIDTH) if received.topic is ITEMS else None
                if isinstance(refusal, Refusal):  # what the tokenizer checks beyond the bounds
                    outcome.refused[refusal.reason] += 1
                else:
                    outcome.accepted += 1
    outcome.refused += letters.reasons
    return outcome


class measured:  # noqa: N801 - reads as a statement
    """Time, growth of resident memory, and the exception that would have ended the process."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._warm_mb: float | None = None

    def __enter__(self) -> Self:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        self._before_mb = memory_mb("VmRSS")
        self._started_s = time.monotonic()
        return self

    def look(self, share: float) -> None:
        """Note what memory there is once this share of the inputs is beyond the warm-up."""
        if self._warm_mb is None and share > WARM_UP:
            self._warm_mb = memory_mb("VmRSS")

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> bool:
        self._outcome.seconds = time.monotonic() - self._started_s
        self._outcome.peak_mb = max(0.0, memory_mb("VmHWM") - self._before_mb)
        if self._warm_mb is not None:
            self._outcome.kept_mb = memory_mb("VmRSS") - self._warm_mb
        if isinstance(error, Exception):
            self._outcome.crashes.append(f"{type(error).__name__}: {error}"[:200])
            return True
        return False


def memory_mb(name: str) -> float:
    """A line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name + ":"))


def in_process_of_its_own(job: Callable[..., Outcome], kind: str, *arguments: Any) -> Outcome:
    """Run a kind so that a crash below Python is counted, too."""
    with ProcessPoolExecutor(1, mp_context=get_context("forkserver")) as pool:
        try:
            return pool.submit(job, kind, *arguments).result()
        except BrokenProcessPool as error:
            return Outcome(kind, crashes=[str(error)])
