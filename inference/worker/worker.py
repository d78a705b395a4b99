"""The worker's loop: read, shed, batch, answer, commit. One thread; what it answers with is kept up by others."""

from __future__ import annotations

import dataclasses
import logging
import time

from confluent_kafka import KafkaError, Message

from inference.catalogue import CatalogueFollower
from inference.engine.search import Engine
from inference.histories import HistoryStore
from inference.weights import VersionFollower
from inference.worker import metrics, stages
from inference.worker.answers import Source, refusal
from inference.worker.intake import Intake, Partitions
from inference.worker.queue import RequestQueue, Waiting
from inference.worker.recommender import Recommender
from inference.worker.room import Room
from onerec.kafka.writer import RecordWriter
from onerec.service import Stop
from onerec.settings import Settings
from onerec.tracing import TurnTrace
from schemas.records import Recommendation, Status
from schemas.topics import RECOMMENDATIONS, Topic, id_key

LOG = logging.getLogger(__name__)
IDLE_S = 0.05
LAG_INTERVAL_S = 0.5
FLUSH_S = 10.0


def output_topic(settings: Settings) -> Topic:
    """Where the answers go: topic recommendations, or a shadow worker's own."""
    return dataclasses.replace(RECOMMENDATIONS, name=settings.inference.worker.output_topic)


class Worker:
    """Answers the requests of the partitions that the consumer group gives it."""

    def __init__(
        self,
        settings: Settings,
        *,
        versions: VersionFollower[Engine],
        catalogue: CatalogueFollower,
        histories: HistoryStore,
    ) -> None:
        worker = settings.inference.worker
        self._versions, self._catalogue, self._histories = versions, catalogue, histories
        self._recommender = Recommender(settings, histories)
        self._queue = RequestQueue(worker.max_batch, worker.deadline_ms, worker.max_wait_ms)
        self._room = Room(worker.max_waiting)
        self._topic = output_topic(settings)
        self._patience_s = settings.kafka.broker_patience_s
        self._writer = RecordWriter(settings.kafka, linger_ms=0)
        self._intake = Intake(settings, on_partitions=self._on_partitions, before_revoke=self._deliver)
        self._trace = TurnTrace("worker")
        self._ready = self._starved = False
        self._lag_at_s = 0.0

    def run(self, stop: Stop) -> None:
        """Serve until asked to stop; then answer what was read, commit and leave the group."""
        self._intake.join()
        try:
            while not stop.is_set():
                self._turn()
                self._become_ready(stop)
            while self._cannot_serve() is None and self._serve():
                self._shed()
            self._deliver()
            self._intake.commit()
        finally:
            self._trace.close()
            self._intake.close()

    def _turn(self) -> None:
        """Read what is there, tell the late ones, answer a batch where one is due, commit where that is due."""
        self._intake.hold(back=not self._room.left(self._intake.in_flight(), self._queue.size_bytes))
        due_ms = self._queue.wait_ms(_now_ms())
        hindered = self._starved or self._cannot_serve() is not None
        requests = self._intake.read(IDLE_S if due_ms is None or hindered else due_ms / 1000.0)
        now_ms = _now_ms()  # first: what passes until the age is known is waiting, too
        wall_ms = _wall_ms()
        for received in requests:
            age_ms = wall_ms - received.record.produced_ms
            self._queue.add(received.record, received.partition, received.offset, now_ms=now_ms, age_ms=age_ms)
        self._shed()
        if self._queue.wait_ms(_now_ms()) == 0.0 and self._cannot_serve() is None:
            self._starved = not self._serve()
        self._writer.poll()
        self._histories.check()
        self._intake.commit_where_due()
        self._measure_where_due()

    def _serve(self) -> bool:
        """Answer the next batch with the version that is current now; whether there was one.

        The only place where the version that answers changes, so a swap never falls into a batch.
        """
        served = self._versions.current()
        snapshot = self._catalogue.snapshot(served.record.codebook_version)
        if snapshot is None:  # the version has just come, with another codebook: nothing has been taken yet
            return False
        batch = self._queue.take(self._histories.restored())
        if not batch:
            return False
        started_ms = _now_ms()
        for waiting in batch:
            stages.observe("sent", waiting.age_ms / 1000.0)
            stages.observe("queued", (started_ms - waiting.arrived_ms) / 1000.0)
        with self._trace.turn("batch"):
            answers = self._recommender.answer([waiting.request for waiting in batch], served, snapshot)
        ended_ms = _now_ms()
        self._queue.served(started_ms, ended_ms)
        for waiting, answer in zip(batch, answers, strict=True):
            if ended_ms > waiting.deadline_ms:
                reason = f"decoding ended {ended_ms - waiting.deadline_ms:.0f} ms after the deadline"
                source = Source(served.version, snapshot)
                self._send(waiting, refusal(waiting.request, Status.OVERLOADED, reason, source, _wall_ms()))
            else:
                self._send(waiting, answer)
        metrics.CATALOGUE.set(len(snapshot))
        metrics.CATALOGUE_OFFSET.set(snapshot.offset)
        return True

    def _shed(self) -> None:
        """Tell those that cannot be answered in time."""
        for waiting, reason in self._queue.shed(_now_ms()):
            cause = self._what_it_waits_for(waiting)
            status = Status.OVERLOADED if cause is None else Status.REFUSED
            self._send(waiting, refusal(waiting.request, status, cause or reason, Source(0, None), _wall_ms()))

    def _what_it_waits_for(self, waiting: Waiting) -> str | None:
        """What keeps a request from being answered besides its turn."""
        cause = self._cannot_serve()
        if cause is None and waiting.partition not in self._histories.restored():
            return "the histories of its partition are still being restored"
        return cause

    def _cannot_serve(self) -> str | None:
        """Why no request can be answered; None where they can."""
        if not self._versions.has_version:
            return "no version of the model has been loaded yet"
        if not self._catalogue.caught_up:
            return "the catalogue is still being read"
        codebook = self._versions.current().record.codebook_version
        if self._catalogue.snapshot(codebook) is None:
            return f"the catalogue has no item with codes of codebook {codebook}"
        return None

    def _become_ready(self, stop: Stop) -> None:
        assigned = self._intake.assigned
        if self._ready or assigned is None or not assigned <= self._histories.restored():
            return
        if self._cannot_serve() is None:
            self._ready = True
            stop.ready()
            LOG.info("ready: partitions %s", sorted(assigned))

    def _send(self, waiting: Waiting, answer: Recommendation) -> None:
        partition, offset = waiting.partition, waiting.offset
        answered = answer.status is Status.ANSWERED

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                self._intake.answered(partition, offset)
                took_s = message.latency()  # librdkafka's: we may hear of it a batch later
                if answered and took_s is not None:
                    stages.observe("delivered", took_s)

        key, at_ms = id_key(answer.user_id), answer.time_ms
        self._writer.send(self._topic, key, answer, timestamp_ms=at_ms, on_delivery=delivered)
        metrics.REQUESTS.labels(answer.status.value).inc()
        if answered:
            metrics.LATENCY.observe(max(0.0, answer.latency_ms) / 1000.0)

    def _deliver(self) -> None:
        """Wait until all answers are on the broker."""
        self._writer.flush(max(FLUSH_S, self._patience_s))

    def _on_partitions(self, ours: Partitions, lost: Partitions) -> None:
        self._queue.forget(lost)
        self._histories.assign(ours)

    def _measure_where_due(self) -> None:
        now_s = time.monotonic()
        if now_s >= self._lag_at_s:
            self._lag_at_s = now_s + LAG_INTERVAL_S
            metrics.LAG_EVENTS.set(self._intake.unanswered())
            metrics.LAG_SECONDS.set(self._queue.oldest_age_ms(_now_ms()) / 1000.0)


def _now_ms() -> float:
    """The clock by which requests wait: it goes on where the wall clock is set."""
    return time.monotonic() * 1000.0


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
