"""A broker that goes away or denies access becomes one sentence with its remedy, and no silence."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException

from onerec.errors import DependencyMissingError
from onerec.kafka import admin, clients, metadata, trouble
from onerec.kafka.dead_letters import DeadLetters
from onerec.kafka.embedded import EmbeddedBroker
from onerec.kafka.follow import TopicFollower
from onerec.kafka.reader import RecordReader
from onerec.kafka.writer import RecordWriter
from onerec.settings import KafkaSettings
from schemas.records import Impression
from schemas.topics import IMPRESSIONS, id_key
from tests.kafka.reading import assigned, until_it_raises
from tests.kafka_process import PASSWORD, USER, KafkaProcess
from tests.schemas.examples import BY_TYPE

NOBODY = KafkaSettings(bootstrap_servers="127.0.0.1:1", broker_patience_s=0.3)
IMPRESSION: Impression = BY_TYPE[Impression]


@pytest.mark.parametrize(
    "ask",
    [
        lambda: admin.wait_for_broker(NOBODY, 0.3),
        lambda: admin.create_topics(NOBODY),
        lambda: admin.check_topics(NOBODY),
        lambda: admin.cluster_id(NOBODY),
        lambda: admin.end_offsets(NOBODY, IMPRESSIONS),
        lambda: admin.committed(NOBODY, "joiner", IMPRESSIONS),
        lambda: TopicFollower(NOBODY, IMPRESSIONS, lambda _: None, service="test"),
    ],
    ids=["wait", "create", "check", "cluster", "ends", "committed", "follow"],
)
def test_no_broker_for_as_long_as_a_service_is_patient(ask: Callable[[], object]) -> None:
    began_s = time.monotonic()
    with pytest.raises(DependencyMissingError, match=r"No Kafka broker answers at 127\.0\.0\.1:1.*bootstrap_servers"):
        ask()
    assert time.monotonic() - began_s < 9.0, "it has waited for something else than kafka.broker_patience_s"


def test_a_broker_that_goes_away_ends_reader_and_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trouble, "PROBE_TIMEOUT_S", 0.3)
    with EmbeddedBroker(tmp_path) as broker:
        patient = KafkaSettings(bootstrap_servers=broker.bootstrap_servers, partitions=1)
        admin.create_topics(patient)
        kafka = patient.model_copy(update={"broker_patience_s": 2.0})
        writer = RecordWriter(kafka)
        consumer = assigned(kafka, [IMPRESSIONS])
        reader = RecordReader(consumer, [IMPRESSIONS], kafka, refused=DeadLetters(kafka, "test"))
        writer.send(IMPRESSIONS, id_key(7), IMPRESSION)
        writer.flush(60)
        assert len(reader.read(10, 60.0)) == 1
        broker.stop()
        with pytest.raises(DependencyMissingError, match="No Kafka broker answers"):
            until_it_raises(lambda: reader.read(10, 0.1))
        with pytest.raises(DependencyMissingError, match="No Kafka broker answers"):
            until_it_raises(lambda: writer.send(IMPRESSIONS, id_key(7), IMPRESSION))
        with pytest.raises(DependencyMissingError, match="No Kafka broker answers"):
            writer.flush(0.5)
        consumer.close()
        writer.producer.purge()


def test_the_same_error_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    watch = trouble.Trouble(NOBODY)
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            watch(KafkaError(KafkaError._TRANSPORT))
        watch(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    assert len(caplog.records) == 2
    assert watch.down_s() >= 0
    watch.seen_alive()
    assert watch.down_s() == 0


def answering(_timeout_s: float) -> None:
    """A probe that finds a broker."""


def test_a_login_that_has_worked_may_fail_for_a_while() -> None:
    def silent(_timeout_s: float) -> None:
        raise KafkaException(KafkaError(KafkaError._TRANSPORT))

    refused_login = KafkaError(KafkaError._AUTHENTICATION)
    first = trouble.Trouble(NOBODY)
    first(refused_login)
    with pytest.raises(DependencyMissingError, match="denies access"):
        first.check(answering, 30.0)
    later = trouble.Trouble(NOBODY)
    later.seen_alive()
    later(refused_login)
    later.check(silent, 30.0)
    later.check(answering, 0.0)
    assert later.down_s() == 0
    later(refused_login)
    with pytest.raises(DependencyMissingError, match="No Kafka broker answers"):
        later.check(silent, 0.0)


def test_a_broker_that_was_there_between_two_absences_has_not_been_away_all_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trouble, "GLANCE_EVERY_S", 0.0)
    watch = trouble.Trouble(NOBODY)
    watch(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    watch.check(answering, 30.0)
    assert watch.down_s() == 0


def test_the_password_is_not_shown() -> None:
    kafka = KafkaSettings.model_validate({"sasl_password": "geheim"})
    assert clients.properties(kafka)["sasl.password"] == "geheim"
    assert "geheim" not in repr(kafka) + kafka.model_dump_json()


def test_names_of_properties() -> None:
    kafka = KafkaSettings(librdkafka={"linger.ms": "50", "ssl.ca.location": "ca.pem"})
    found = clients.properties(kafka, enable_partition_eof=True, error_cb=print, **{"fetch.wait.max.ms": 1})
    assert found["ssl.ca.location"] == "ca.pem"
    assert found["enable.partition.eof"] is True
    assert found["error_cb"] is print
    assert found["fetch.wait.max.ms"] == 1


@pytest.fixture
def secured(kafka_process: KafkaProcess) -> str:
    """Servers of a Kafka that asks for a password, and grants its user nothing."""
    admin.create_topics(KafkaSettings(bootstrap_servers=kafka_process.bootstrap_servers))
    return kafka_process.secured_servers


def logged_in(servers: str, password: str) -> KafkaSettings:
    security = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": USER}
    return KafkaSettings.model_validate(
        {"bootstrap_servers": servers, "librdkafka": security, "sasl_password": password}
    )


def test_a_wrong_password_is_no_hang(secured: str) -> None:
    kafka = logged_in(secured, "wrong")
    with pytest.raises(DependencyMissingError, match=r"denies access.*sasl_password"):
        admin.wait_for_broker(kafka, 60)
    with pytest.raises(DependencyMissingError, match="denies access"):
        RecordWriter(kafka).send(IMPRESSIONS, id_key(7), IMPRESSION)
    consumer = clients.consumer(kafka, group="reader")
    consumer.subscribe([IMPRESSIONS.name])
    reader = RecordReader(consumer, [IMPRESSIONS], kafka, refused=DeadLetters(kafka, "test"))
    with pytest.raises(DependencyMissingError, match="denies access"):
        until_it_raises(lambda: reader.read(10, 0.5))
    consumer.close()


def test_a_missing_right_is_named(secured: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "APPEAR_TIMEOUT_S", 0.2)
    kafka = logged_in(secured, PASSWORD)
    admin.wait_for_broker(kafka, 60)
    with pytest.raises(DependencyMissingError, match=r"denies access|hidden from this user"):
        admin.create_topics(kafka)
    with pytest.raises(DependencyMissingError, match="hidden from this user: topic impressions"):
        RecordWriter(kafka).send(IMPRESSIONS, id_key(7), IMPRESSION)
    consumer = clients.consumer(kafka, group="reader")
    consumer.subscribe([IMPRESSIONS.name])
    reader = RecordReader(consumer, [IMPRESSIONS], kafka, refused=DeadLetters(kafka, "test"))
    with pytest.raises(DependencyMissingError, match=r"denies access"):
        until_it_raises(lambda: reader.read(10, 0.5))
    consumer.close()
