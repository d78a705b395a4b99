"""A running worker with a catalogue, histories and clients around it."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from inference.worker.service import run_worker
from inference.worker.worker import output_topic
from onerec.kafka.follow import TopicFollower
from onerec.kafka.reader import Received
from onerec.kafka.writer import RecordWriter
from onerec.service import Stop
from onerec.settings import Settings
from schemas.packed import pack_longs
from schemas.records import History, ItemTokens, Recommendation, Request
from schemas.topics import HISTORIES, ITEM_TOKENS, REQUESTS, id_key

LEVELS, CODES = 3, 8
NOW_MS = 1_650_000_000_000
WAIT_S = 60.0


def eventually(holds: Callable[[], bool]) -> None:
    """Return once it holds."""
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class World:
    """Everything around the worker: who publishes items and histories, who asks and who reads the answers."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.answers: dict[int, list[Recommendation]] = {}
        self._writer = RecordWriter(settings.kafka, linger_ms=0)
        self._numbers = itertools.count(1)
        self._answers = TopicFollower(settings.kafka, output_topic(settings), self._on_answer, service="test")

    def items(self, numbers: Sequence[int], *, codebook: int = 1) -> None:
        """Publish items 1000 + number, even ones tagged "even"; each number has codes of its own."""
        for number in numbers:
            codes = tuple(number // CODES**level % CODES for level in reversed(range(LEVELS)))
            tokens = ItemTokens(
                item_id=1000 + number,
                codes=codes,
                codebook_version=codebook,
                duration_ms=1000 * number,
                tags=("odd" if number % 2 else "even", "all"),
                created_ms=NOW_MS,
            )
            self._writer.send(ITEM_TOKENS, id_key(tokens.item_id), tokens)
        self._writer.flush(WAIT_S)

    def history(self, user_id: int, items: Sequence[int]) -> None:
        """Publish a user's history of item ids."""
        record = History(
            user_id=user_id,
            history_items=pack_longs(items),
            history_times_ms=pack_longs([NOW_MS] * len(items)),
            history_labels=bytes([1] * len(items)),
            updated_ms=NOW_MS,
        )
        self._writer.send(HISTORIES, id_key(user_id), record)
        self._writer.flush(WAIT_S)

    def ask(self, user_id: int, *, age_ms: int = 0, **wishes: object) -> int:
        """Send a request; its id."""
        request = Request(
            request_id=next(self._numbers),
            user_id=user_id,
            time_ms=NOW_MS,
            produced_ms=time.time_ns() // 1_000_000 - age_ms,
            **wishes,  # type: ignore[arg-type]
        )
        self._writer.send(REQUESTS, id_key(user_id), request, timestamp_ms=NOW_MS)
        self._writer.poll()
        return request.request_id

    def answer(self, request_id: int) -> Recommendation:
        """The answer to a request, waiting for it."""
        self.wait([request_id])
        return self.answers[request_id][0]

    def wait(self, request_ids: Sequence[int]) -> None:
        """Wait until all these requests are answered."""
        deadline = time.monotonic() + WAIT_S
        while missing := [number for number in request_ids if number not in self.answers]:
            assert time.monotonic() < deadline, f"{len(missing)} requests without an answer: {missing[:5]}"
            self._answers.poll(0.1)

    def close(self) -> None:
        """Leave the broker."""
        self._writer.flush(WAIT_S)
        self._answers.close()

    def _on_answer(self, received: Received) -> None:
        self.answers.setdefault(received.record.request_id, []).append(received.record)


class RunningWorker:
    """A worker in a thread of its own."""

    def __init__(self, settings: Settings) -> None:
        self.stop = Stop("worker")
        self._failure: BaseException | None = None
        self._ready = threading.Event()
        self._settings = settings
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.stop.ready = self._ready.set  # type: ignore[method-assign]
        self._thread.start()

    def wait_ready(self) -> None:
        """Wait until it says that it is ready."""
        assert self._ready.wait(WAIT_S), self._failure
        assert self._failure is None

    def has_ended_within(self, timeout_s: float) -> bool:
        """Whether it ends by itself in that time."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def close(self) -> None:
        """Stop it; raises what ended it, if anything did."""
        self.stop.set()
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            run_worker(self._settings, self.stop)
        except BaseException as error:
            self._failure = error


@contextmanager
def running(settings: Settings) -> Iterator[RunningWorker]:
    """A worker that is stopped at the end."""
    worker = RunningWorker(settings)
    try:
        yield worker
    finally:
        worker.close()
