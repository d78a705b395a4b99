"""The joiner as a process on a real broker."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from onerec.errors import ExitCode
from onerec.kafka import admin, clients
from onerec.kafka.writer import RecordWriter
from onerec.settings import JoinerSettings, KafkaSettings
from schemas.records import ClosedBy, History, ItemTokens
from schemas.topics import (
    ACTIONS,
    DEAD_LETTERS,
    HISTORIES,
    IMPRESSIONS,
    ITEM_TOKENS,
    JOINER_CHANGELOG,
    SESSIONS,
    id_key,
)
from tests.broker import Broker
from tests.stream.joiner.events import Event, action, impression, view
from tests.stream.joiner.oracle import expected
from tests.stream.joiner.running import PATIENCE_S, Feeder, JoinerProcess, eventually, records, until_records
from tests.stream.joiner.test_join import entries, plain

pytestmark = pytest.mark.broker

NOW_MS = 1_650_000_000_000
RULES: dict[str, Any] = {"session_items": 3, "session_gap_ms": 40_000, "feedback_window_ms": 15_000, "history_items": 4}
QUICK: dict[str, Any] = RULES | {"known_items_only": False, "idle_close_s": 1.0, "transaction_ms": 50}


def some_events(users: int, visits: int, *, begin_ms: int = NOW_MS) -> list[Event]:
    events: list[Event] = []
    for visit in range(visits):
        for user in range(1, users + 1):
            at_ms = begin_ms + visit * 20_000 + user
            item = 10 + (visit * 7 + user) % 50
            events.append(impression(item, at_ms, user=user, request=visit))
            events.append(view(item, at_ms + 4_000, 1_000 * (5 + visit + user), user=user, request=visit))
            if (visit + user) % 3 == 0:
                events.append(action(item, at_ms + 5_000, user=user, request=visit))
    return sorted(events, key=lambda event: event.time_ms)


def check_against_oracle(kafka: KafkaSettings, events: list[Event]) -> None:
    wanted = expected(events, JoinerSettings(**RULES))
    sessions = records(kafka, SESSIONS)
    assert len({session.session_id for session in sessions}) == len(sessions), "a session came twice"
    assert {plain(session) for session in sessions} == wanted.sessions
    newest = {history.user_id: entries(history) for history in records(kafka, HISTORIES)}
    assert newest == wanted.histories


def all_closed(joiner: JoinerProcess, kafka: KafkaSettings, events: list[Event]) -> None:
    """Wait until every session is out."""
    wanted = len(expected(events, JoinerSettings(**RULES)).sessions)
    until_records(kafka, SESSIONS, wanted, f"{wanted} sessions\n{joiner.output()}")
    joiner.until(lambda samples: samples.get("stream_joiner_open_sessions") == 0)


def test_sessions_histories_and_metrics_of_a_log(kafka: KafkaSettings, tmp_path: Path) -> None:
    events = some_events(users=20, visits=8)
    Feeder(kafka).publish(events)

    with JoinerProcess(kafka, tmp_path, **QUICK) as joiner:
        all_closed(joiner, kafka, events)
        published = len(records(kafka, SESSIONS))
        joiner.until(lambda samples: samples.get("stream_joiner_sessions_total") == published)
        samples = joiner.until(lambda samples: samples.get("stream_joiner_lag_events") == 0)
        assert samples.get("stream_joiner_events_total") == len(events)
        assert samples.get("stream_joiner_open_impressions") == 0
        assert joiner.stop() == 0
    check_against_oracle(kafka, events)
    assert {session.closed_by for session in records(kafka, SESSIONS)} == {ClosedBy.FULL, ClosedBy.IDLE}


def test_bad_late_and_unknown_records_go_to_dead_letters_and_the_stream_goes_on(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    writer = RecordWriter(kafka)
    for item in (1, 2):
        tokens = ItemTokens(item_id=item, codes=(0, 0, 0), codebook_version=1, duration_ms=1, tags=(), created_ms=1)
        writer.send(ITEM_TOKENS, id_key(item), tokens)
    writer.flush(60)
    feeder = Feeder(kafka)
    future_ms = int(time.time() * 1000) + 7_200_000
    feeder.publish_raw(IMPRESSIONS, b"1", b"no record at all", partition=0)
    feeder.publish_raw(IMPRESSIONS, b"1", b"\xc3\x01" + b"\x07" * 8 + b"unknown schema", partition=0)
    bad: list[Event] = [
        impression(1, future_ms),
        impression(777, NOW_MS),
        view(1, NOW_MS, -5),
        view(1, NOW_MS, 10**12),
        action(2, NOW_MS, request=5),
    ]
    good: list[Event] = [
        impression(1, NOW_MS),
        impression(2, NOW_MS + 1_000),
        view(1, NOW_MS + 16_000, 19_000),
        view(2, NOW_MS + 2_000, 19_000),
    ]
    for event in bad + good:
        feeder.publish_to(0, event)
    feeder.flush()

    with JoinerProcess(kafka, tmp_path, **(QUICK | {"known_items_only": True})) as joiner:
        until_records(kafka, SESSIONS, 1, joiner.output())
        until_records(kafka, DEAD_LETTERS, 8, joiner.output())
        tokens = ItemTokens(item_id=777, codes=(1, 0, 0), codebook_version=1, duration_ms=1, tags=(), created_ms=1)
        writer.send(ITEM_TOKENS, id_key(777), tokens)
        writer.flush(60)
        feeder.publish_to(0, impression(777, NOW_MS + 100_000, request=9))
        feeder.flush()
        until_records(kafka, SESSIONS, 2, joiner.output())
        joiner.until(lambda samples: samples.get("onerec_dead_letters_total", reason="unknown_item") == 1)
        assert joiner.stop() == 0

    letters = records(kafka, DEAD_LETTERS)
    assert sorted((letter.topic, letter.reason) for letter in letters) == [
        ("actions", "late"),
        ("actions", "orphan"),
        ("actions", "out_of_bounds"),
        ("actions", "out_of_bounds"),
        ("impressions", "future"),
        ("impressions", "undecodable"),
        ("impressions", "unknown_item"),
        ("impressions", "unknown_schema"),
    ]
    assert all(letter.service == "joiner" and letter.value and letter.detail for letter in letters)
    first, second = sorted(records(kafka, SESSIONS), key=lambda session: session.start_ms)
    assert [(item.item_id, item.labels) for item in first.items] == [(1, 0), (2, 1)]
    assert [item.item_id for item in second.items] == [777]
    assert entries(second) == ((1, NOW_MS, 1), (2, NOW_MS + 1_000, 1))


def test_a_new_machine_goes_on_where_the_old_one_stopped_with_imported_histories(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    imported = History(
        user_id=1, history_items=b"\x05" + bytes(7), history_times_ms=bytes(8), history_labels=b"\x03", updated_ms=5
    )
    writer = RecordWriter(kafka)
    writer.send(HISTORIES, id_key(1), imported)
    writer.flush(60)
    events = some_events(users=5, visits=9)
    feeder = Feeder(kafka)
    patient = QUICK | {"idle_close_s": 600.0}

    with JoinerProcess(kafka, tmp_path, **patient) as joiner:
        feeder.publish(events[:60])
        joiner.until(lambda samples: samples.get("stream_joiner_events_total") == 60)
        assert joiner.stop() == 0
        shutil.rmtree(joiner.directory / "state")
        feeder.publish(events[60:])
        joiner.start()
        joiner.until(lambda samples: samples.get("stream_joiner_events_total") == len(events) - 60)
        assert joiner.stop() == 0
    with JoinerProcess(kafka, tmp_path, **QUICK) as joiner:
        all_closed(joiner, kafka, events)

    own = [event for event in events if event.user_id != 1]
    wanted = expected(own, JoinerSettings(**RULES))
    sessions = records(kafka, SESSIONS)
    assert {plain(session) for session in sessions if session.user_id != 1} == wanted.sessions
    first = min((session for session in sessions if session.user_id == 1), key=lambda session: session.start_ms)
    assert entries(first) == ((5, 0, 3),)


def test_a_broker_that_is_not_there_and_topics_that_are_missing_are_said_in_a_sentence(
    bare_kafka: KafkaSettings, tmp_path: Path
) -> None:
    nowhere = bare_kafka.model_copy(update={"bootstrap_servers": "127.0.0.1:1", "broker_patience_s": 1.0})
    without_topics = JoinerProcess(bare_kafka, tmp_path / "topics", **QUICK)
    without_broker = JoinerProcess(nowhere, tmp_path / "broker", **QUICK)
    with without_topics, without_broker:
        assert [without_topics.wait(), without_broker.wait()] == [3, 3]
    assert "onerec topics create" in without_topics.output()
    assert "No Kafka broker answers at 127.0.0.1:1" in without_broker.output()
    assert "Traceback" not in without_topics.output() + without_broker.output()


def test_a_changelog_that_is_gone_stops_the_joiner_with_the_remedy(kafka: KafkaSettings, tmp_path: Path) -> None:
    Feeder(kafka).publish(some_events(users=2, visits=2))
    with JoinerProcess(kafka, tmp_path, **QUICK) as joiner:
        joiner.until(lambda samples: samples.get("stream_joiner_events_total") > 0)
        assert joiner.stop() == 0
        client = admin.WatchedAdmin(kafka)
        name = clients.topic_name(kafka, JOINER_CHANGELOG)
        client.delete_topics([name])[name].result(PATIENCE_S)
        eventually(lambda: name not in client.list_topics(timeout=PATIENCE_S).topics, "deleted")
        admin.create_topics(kafka)

        joiner.start()

        assert joiner.wait() == 4
        assert "delete the topic joiner-changelog" in joiner.output()


@pytest.mark.slow
def test_partitions_move_between_joiners_and_every_session_comes_once(
    broker: Broker, kafka: KafkaSettings, tmp_path: Path
) -> None:
    events = some_events(users=30, visits=12)
    third = len(events) // 3
    patient = QUICK | {"idle_close_s": 600.0, "static_member": broker.kind != "embedded"}
    feeder = Feeder(kafka)

    def joined(joiners: list[JoinerProcess]) -> float:
        return sum(joiner.metrics().get("stream_joiner_events_total") for joiner in joiners)

    def owned(joiner: JoinerProcess) -> float:
        return joiner.metrics().get("stream_joiner_partitions")

    one, two = (JoinerProcess(kafka, tmp_path, instance=instance, **patient) for instance in ("0", "1"))
    with one, two:
        feeder.publish(events[:third])
        eventually(lambda: owned(one) == 1 and owned(two) == 1, "each joiner has a partition")
        eventually(lambda: joined([one, two]) >= third, "the first third is joined")
        feeder.publish(events[third : 2 * third])
        assert two.stop() == 0
        eventually(lambda: owned(one) == 2, "the one that is left has both partitions")
        feeder.publish(events[2 * third :])
        eventually(lambda: one.metrics().get("stream_joiner_lag_events") == 0, "read")
        assert one.stop() == 0
    with JoinerProcess(kafka, tmp_path, **QUICK) as last:
        all_closed(last, kafka, events)
    check_against_oracle(kafka, events)


def test_no_topic_is_left_out_of_the_partition_check(kafka: KafkaSettings, tmp_path: Path) -> None:
    client = admin.WatchedAdmin(kafka)
    name = clients.topic_name(kafka, ACTIONS)
    client.delete_topics([name])[name].result(PATIENCE_S)
    eventually(lambda: name not in client.list_topics(timeout=PATIENCE_S).topics, "deleted")
    admin.create_topics(kafka.model_copy(update={"partitions": 5}))

    with JoinerProcess(kafka, tmp_path, **QUICK) as joiner:
        assert joiner.wait() == 4
        assert "same number of partitions" in joiner.output()


@pytest.mark.slow
@pytest.mark.exactly_once
def test_a_joiner_that_sleeps_past_its_session_wakes_up_without_harm(kafka: KafkaSettings, tmp_path: Path) -> None:
    events = some_events(users=30, visits=12)
    third = len(events) // 3
    patient = QUICK | {"idle_close_s": 600.0}
    feeder = Feeder(kafka)
    one, two = (JoinerProcess(kafka, tmp_path, instance=instance, **patient) for instance in ("0", "1"))
    with one, two:
        for joiner in (one, two):
            joiner.until(lambda samples: samples.get("stream_joiner_partitions") == 1)
        one.signal(signal.SIGSTOP)
        feeder.publish(events[:third])
        two.until(lambda samples: samples.get("stream_joiner_partitions") == 2)
        feeder.publish(events[third : 2 * third])
        two.until(lambda samples: samples.get("stream_joiner_events_total") == 2 * third)
        one.signal(signal.SIGCONT)
        one.until(lambda samples: samples.get("stream_joiner_partitions") == 1)
        feeder.publish(events[2 * third :])
        assert one.stop() == 0
        assert two.stop() == 0
    with JoinerProcess(kafka, tmp_path, **QUICK) as last:
        all_closed(last, kafka, events)
    check_against_oracle(kafka, events)


@pytest.mark.slow
@pytest.mark.exactly_once
def test_an_idle_joiner_whose_place_was_taken_while_it_slept_ends(kafka: KafkaSettings, tmp_path: Path) -> None:
    """It has nothing to commit when it wakes up, so that the group alone tells it."""
    events = some_events(users=10, visits=6)
    half = len(events) // 2
    patient = QUICK | {"idle_close_s": 600.0}
    feeder = Feeder(kafka)
    sleeper, successor = (JoinerProcess(kafka, tmp_path / name, **patient) for name in ("sleeper", "successor"))
    with sleeper:
        feeder.publish(events[:half])
        sleeper.until(lambda samples: samples.get("stream_joiner_events_total") == half)
        sleeper.signal(signal.SIGSTOP)
        with successor:
            successor.until_ready()
            sleeper.signal(signal.SIGCONT)
            assert sleeper.wait() == ExitCode.CHECK_FAILED, sleeper.output()
            assert "Another joiner of instance '0' runs" in sleeper.output()
            feeder.publish(events[half:])
            successor.until(lambda samples: samples.get("stream_joiner_events_total") == len(events) - half)
            assert successor.stop() == 0
    with JoinerProcess(kafka, tmp_path, **QUICK) as last:
        all_closed(last, kafka, events)
    check_against_oracle(kafka, events)
