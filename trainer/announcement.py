"""Announcing versions, in transactions: the broker itself refuses a trainer that has been replaced.

A trainer that slept while another one took over learns of that at the journal, before it makes a version. But it may
fall asleep again, or be cut off, between that look and the announcement. Its successor has begun a new epoch of the
same transactional id by then, so that what the sleeper announces is void, however late it comes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from confluent_kafka import KafkaException

from onerec.errors import DependencyMissingError
from onerec.kafka.follow import TopicFollower
from onerec.kafka.patience import ask
from onerec.kafka.reader import Received
from onerec.kafka.trouble import DENIED, explained
from onerec.kafka.writer import RecordWriter
from onerec.settings import KafkaSettings
from schemas.records import ModelVersion, VersionStatus
from schemas.topics import MODEL_VERSIONS

LOG = logging.getLogger(__name__)
INIT_TIMEOUT_S = 10.0
COMMIT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0
TRANSACTION_TIMEOUT_MS = 10_000
"""Readers of model-versions wait for as long behind an announcement whose trainer died in the middle of it."""


class Announcer:
    """The one trainer of a model that may announce versions of it. One thread."""

    def __init__(self, kafka: KafkaSettings, model: str, check_ours: Callable[[], None]) -> None:
        """`check_ours` raises where another trainer has taken over. Call `take_over` before the first announcement."""
        self._kafka = kafka
        self._model = model
        self._check_ours = check_ours
        self._identifier = f"{kafka.topic_prefix}{kafka.group_prefix}trainer-{model}"
        self._writer: RecordWriter | None = None

    def take_over(self) -> int:
        """From here on no earlier trainer of the model can announce anything; the newest announced version, or 0.

        Raises DependencyMissingError where the broker does not answer in time or denies it.
        """
        try:
            ask(self._fence, self._kafka.broker_patience_s)
        except KafkaException as error:
            raise explained(error, self._kafka, f"transactional id {self._identifier}", operation="Write") from error
        return newest_announced(self._kafka, self._model)

    def announce(self, record: ModelVersion) -> None:
        """Put the version on model-versions; where it is not known whether it got there, again.

        Raises CheckFailedError where another trainer has taken over, and DependencyMissingError where the broker does
        not take it in time or denies it.
        """
        deadline_s = time.monotonic() + self._kafka.broker_patience_s
        while True:
            try:
                return self._commit(record)
            except (KafkaException, DependencyMissingError) as error:
                self._check_ours()
                if time.monotonic() > deadline_s or _is_denied(error):
                    raise self._sentence(error, record) from error
                LOG.warning("announcing version %d failed: with a new producer again: %s", record.version, error)
            announced = self.take_over()
            self._check_ours()
            if announced >= record.version:
                return None  # it had been committed, only the answer was lost

    def _fence(self) -> None:
        if self._writer is not None:
            self._writer.producer.purge(in_flight=True)
        writer = RecordWriter(
            self._kafka, transactional_id=self._identifier, transaction_timeout_ms=TRANSACTION_TIMEOUT_MS
        )
        writer.producer.init_transactions(INIT_TIMEOUT_S)
        self._writer = writer

    def _commit(self, record: ModelVersion) -> None:
        assert self._writer is not None, "take_over comes first"
        self._writer.producer.begin_transaction()
        self._writer.send(MODEL_VERSIONS, self._model.encode(), record)
        self._writer.producer.commit_transaction(COMMIT_TIMEOUT_S)

    def _sentence(self, error: Exception, record: ModelVersion) -> DependencyMissingError:
        if isinstance(error, DependencyMissingError):
            return error
        return explained(KafkaException(error.args[0]), self._kafka, f"announcing version {record.version}")


def newest_announced(kafka: KafkaSettings, model: str) -> int:
    """The newest version of the model on model-versions; 0 for none."""
    versions = [0]

    def keep(received: Received) -> None:
        record = received.record
        if record.model == model and record.status is VersionStatus.PUBLISHED:
            versions.append(record.version)

    follower = TopicFollower(kafka, MODEL_VERSIONS, keep, service="trainer")
    follower.catch_up(READ_TIMEOUT_S)
    follower.close()
    return max(versions)


def _is_denied(error: Exception) -> bool:
    return isinstance(error, KafkaException) and error.args[0].code() in DENIED
