"""Topics are made as the table says, once; what differs is said in sentences."""

from __future__ import annotations

import json
import time

import pytest
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]
from typer.testing import CliRunner

from onerec.cli.topics import app
from onerec.kafka import admin, clients, layout
from onerec.kafka.writer import RecordWriter
from onerec.settings import KafkaSettings
from schemas.records import Impression
from schemas.topics import ACTIONS, HISTORIES, IMPRESSIONS, ITEMS, TOPICS, TRAINER_JOURNAL, Cleanup, id_key
from tests.kafka.late_leader import Api, LateLeader
from tests.kafka.reading import read_all
from tests.kafka_process import KafkaProcess
from tests.schemas.examples import BY_TYPE, TIME_MS

NOBODY = "127.0.0.1:1"


def environment(kafka: KafkaSettings) -> dict[str, str]:
    return {
        "ONEREC_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "ONEREC_KAFKA__TOPIC_PREFIX": kafka.topic_prefix,
        "ONEREC_KAFKA__PARTITIONS": str(kafka.partitions),
    }


@pytest.mark.broker
def test_made_once_and_then_left_alone(bare_kafka: KafkaSettings) -> None:
    assert set(admin.check_topics(bare_kafka)) == {
        f"Topic {bare_kafka.topic_prefix}{topic.name} is missing." for topic in TOPICS
    }
    assert set(admin.create_topics(bare_kafka)) == {bare_kafka.topic_prefix + topic.name for topic in TOPICS}
    assert admin.create_topics(bare_kafka) == []
    assert admin.check_topics(bare_kafka) == []


@pytest.mark.exactly_once
@pytest.mark.broker
def test_made_once_their_leaders_answer(bare_kafka: KafkaSettings) -> None:
    """A topic is listed before its leader takes records: who writes at once must not be refused."""
    refused = 3
    topic = clients.topic_name(bare_kafka, IMPRESSIONS)
    with LateLeader(bare_kafka.bootstrap_servers, topic, Api.LIST_OFFSETS, refused=refused) as late:
        beyond = bare_kafka.model_copy(update={"bootstrap_servers": late.bootstrap_servers})
        assert admin.create_topics(beyond, topics=[IMPRESSIONS]) == [topic]
        assert late.asked > refused


@pytest.mark.broker
def test_differences_are_named(bare_kafka: KafkaSettings) -> None:
    prefix = bare_kafka.topic_prefix
    client = AdminClient({"bootstrap.servers": bare_kafka.bootstrap_servers})
    foreign = NewTopic(prefix + "actions", 3, 1, config={"cleanup.policy": "compact", "retention.ms": "604800000"})
    for made in client.create_topics([foreign]).values():
        made.result(60)
    admin.create_topics(bare_kafka)
    differences = admin.check_topics(bare_kafka)
    assert all(sentence.startswith(f"Topic {prefix}actions ") for sentence in differences)
    text = "\n".join(differences)
    assert "has 3 partitions instead of 2" in text
    assert "cleanup.policy=compact instead of delete" in text
    assert "retention.ms=604800000 instead of -1" in text
    thrice = bare_kafka.model_copy(update={"replication_factor": 3})
    assert any("has 1 replica instead of 3" in sentence for sentence in admin.check_topics(thrice))


@pytest.mark.broker
def test_events_of_any_age_stay(kafka: KafkaSettings) -> None:
    """A log of years ago is kept as it is, and an event ahead of the clock reaches the reader, who refuses it."""
    writer = RecordWriter(kafka)
    ahead_ms = time.time_ns() // 1_000_000 + 30 * 86_400_000
    times_ms = [1, 946_684_800_000, 1_650_000_000_000, ahead_ms]
    for time_ms in times_ms:
        writer.send(IMPRESSIONS, id_key(7), BY_TYPE[Impression], timestamp_ms=time_ms)
    writer.flush(60)
    assert [received.timestamp_ms for received in read_all(kafka, IMPRESSIONS)] == times_ms


def test_a_log_of_the_past_outlives_the_search_for_old_records(kafka_process: KafkaProcess) -> None:
    kafka = KafkaSettings(bootstrap_servers=kafka_process.bootstrap_servers, topic_prefix="kept-")
    week = kafka.model_copy(update={"topic_prefix": "week-", "retention_ms": 604_800_000})
    for settings in (kafka, week):
        admin.create_topics(settings, topics=[IMPRESSIONS])
        writer = RecordWriter(settings)
        writer.send(IMPRESSIONS, id_key(7), BY_TYPE[Impression], timestamp_ms=TIME_MS, partition=0)
        writer.flush(60)
    deadline_s = time.monotonic() + 60
    while admin.beginning_offsets(week, IMPRESSIONS)[0] == 0:
        assert time.monotonic() < deadline_s, "a week's retention should have deleted the record of 2022"
    assert admin.beginning_offsets(kafka, IMPRESSIONS)[0] == 0
    assert len(read_all(kafka, IMPRESSIONS)) == 1


@pytest.mark.broker
def test_the_command_makes_and_checks(bare_kafka: KafkaSettings) -> None:
    run = CliRunner(env=environment(bare_kafka))
    before = run.invoke(app, ["check"])
    assert before.exit_code == 4
    assert "impressions is missing." in before.output
    made = run.invoke(app, ["create"])
    assert made.exit_code == 0
    assert f"made {bare_kafka.topic_prefix}impressions" in made.output
    assert "All topics exist" in run.invoke(app, ["create"]).output
    after = run.invoke(app, ["check", "--json"])
    assert after.exit_code == 0
    assert json.loads(after.output) == {"differences": []}


@pytest.mark.parametrize("command", ["create", "check"])
def test_the_command_without_a_broker(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onerec.cli.topics.BROKER_TIMEOUT_S", 0.3)
    done = CliRunner(env={"ONEREC_KAFKA__BOOTSTRAP_SERVERS": NOBODY}).invoke(app, [command])
    assert done.exit_code == 3
    assert f"No Kafka broker answers at {NOBODY}" in done.output


def test_nothing_is_deleted_by_age_unless_asked() -> None:
    kafka, week = KafkaSettings(), KafkaSettings(retention_ms=604_800_000)
    for topic in TOPICS:
        wanted = layout.configuration(kafka, topic)
        assert wanted["message.timestamp.type"] == "CreateTime"
        assert wanted["cleanup.policy"] == ("compact" if topic.cleanup is Cleanup.COMPACT else "delete")
        assert wanted.get("retention.ms") == (None if topic.cleanup is Cleanup.COMPACT else "-1")
    assert layout.configuration(week, ACTIONS)["retention.ms"] == "604800000"
    assert layout.configuration(week, TRAINER_JOURNAL)["retention.ms"] == "-1"
    assert "retention.ms" not in layout.configuration(week, HISTORIES)


def test_a_record_counts_once_all_but_one_replica_have_it() -> None:
    thrice = KafkaSettings(replication_factor=3)
    assert layout.configuration(KafkaSettings(), ACTIONS)["min.insync.replicas"] == "1"
    assert layout.configuration(thrice, ACTIONS)["min.insync.replicas"] == "2"
    asked = KafkaSettings(replication_factor=3, min_insync_replicas=3)
    assert layout.configuration(asked, ACTIONS)["min.insync.replicas"] == "3"
    found = layout.Found(4, 3, layout.configuration(thrice, ACTIONS))
    assert list(layout.differences(asked, ACTIONS, found)) == [
        "Topic actions has min.insync.replicas=2 instead of 3: alter it (kafka-configs --alter)."
    ]


def test_topics_of_one_order_have_one_partition() -> None:
    kafka = KafkaSettings(partitions=12)
    assert layout.partitions(kafka, ITEMS) == 1
    assert layout.partitions(kafka, ACTIONS) == 12


def test_an_older_broker_need_not_know_newer_settings() -> None:
    kafka = KafkaSettings()
    configuration = {
        key: value for key, value in layout.configuration(kafka, ACTIONS).items() if key not in layout.NEWER_KEYS
    }
    assert list(layout.differences(kafka, ACTIONS, layout.Found(4, 1, configuration))) == []
    del configuration["retention.ms"]
    (sentence,) = layout.differences(kafka, ACTIONS, layout.Found(4, 1, configuration))
    assert "does not say its retention.ms" in sentence
