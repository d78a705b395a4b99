"""`onerec dead-letters` against a real broker: what was refused is listed, shown and put back, each letter once."""

from __future__ import annotations

import dataclasses
import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from onerec.cli.app import app
from onerec.cli.dead_letters import since_ms
from onerec.errors import DependencyMissingError, SettingsError
from onerec.kafka import clients, metadata
from onerec.kafka.dead_letters import DeadLetters
from onerec.kafka.letter_replay import plan, replay
from onerec.kafka.letters import REPLAYED_HEADER, Selection
from onerec.kafka.registry import codec
from onerec.kafka.writer import RecordWriter
from onerec.settings import KafkaSettings
from schemas.reasons import Reason
from schemas.records import Action, ItemTokens
from schemas.topics import ACTIONS, DEAD_LETTERS, IMPRESSIONS, ITEM_TOKENS, SESSIONS, Topic, id_key
from tests.kafka.late_leader import Api, LateLeader
from tests.kafka.reading import assigned, committed_keys
from tests.schemas.examples import BY_TYPE, TIME_MS
from tests.stream.joiner.events import impression, view
from tests.stream.joiner.running import Feeder, JoinerProcess, records, until_records

pytestmark = pytest.mark.broker


@pytest.fixture
def given(kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch) -> KafkaSettings:
    for name in ("bootstrap_servers", "topic_prefix", "group_prefix", "partitions"):
        monkeypatch.setenv(f"ONEREC_KAFKA__{name.upper()}", str(getattr(kafka, name)))
    return kafka


def run(*arguments: str, answer: str | None = None) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["dead-letters", *arguments], input=answer, env={"COLUMNS": "240"})
    return result.exit_code, result.stdout, result.stderr


def listed(*arguments: str) -> dict[tuple[str, str], dict[str, Any]]:
    code, out, err = run("list", "--json", *arguments)
    assert code == 0, err
    return {(group["topic"], group["reason"]): group for group in json.loads(out)["groups"]}


def refuse(kafka: KafkaSettings, topic: Topic | str, value: bytes | None, reason: Reason, **more: Any) -> None:
    refused = DeadLetters(kafka, more.pop("service", "joiner"))
    place: dict[str, Any] = {
        "partition": 1,
        "offset": 5,
        "timestamp_ms": TIME_MS,
        "key": b"7",
        "detail": "it was wrong",
    } | more
    refused.refuse(topic=topic, value=value, reason=reason, **(place | more))
    refused.flush()


def put_back(kafka: KafkaSettings, topic: Topic, count: int) -> list[Any]:
    """The first messages of a topic."""
    consumer = assigned(kafka, [topic])
    found: list[Any] = []
    deadline_s = time.monotonic() + 60
    while len(found) < count and time.monotonic() < deadline_s:
        found += [message for message in consumer.consume(100, 0.2) if message.error() is None]
    consumer.close()
    return found


def test_list_counts_by_service_topic_and_reason_and_filters(given: KafkaSettings) -> None:
    assert "no letters" in run("list")[1]
    for _ in range(5):
        refuse(given, ACTIONS, b"\xff", Reason.UNDECODABLE)
    refuse(given, IMPRESSIONS, None, Reason.FUTURE, detail="\x1b[31mred\nline [bold]")
    refuse(given, "items", b"\x00", Reason.WRONG_WIDTH, service="tokenizer")
    refuse(given, ACTIONS, b"\x01", Reason.LATE)
    found = listed()
    assert {key: group["letters"] for key, group in found.items()} == {
        ("actions", "undecodable"): 5,
        ("impressions", "future"): 1,
        ("items", "wrong_width"): 1,
        ("actions", "late"): 1,
    }
    undecodable = found["actions", "undecodable"]
    assert undecodable["newest"] == [4, 3, 2]
    assert (undecodable["detail"], undecodable["replayed"]) == ("it was wrong", 0)
    assert set(listed("--topic", "actions", "--reason", "late", "--reason", "future")) == {("actions", "late")}
    assert set(listed("--service", "tokenizer")) == {("items", "wrong_width")}
    assert listed("--since", "2h").keys() == found.keys()
    assert listed("--since", "2999-01-01") == {}
    code, out, _ = run("list")
    assert code == 0
    assert "tokenizer" in out
    assert "\x1b" not in out, "a letter must not write to the terminal"
    assert "[bold]" in out
    assert "8 letters, 0 replayed" in out
    assert listed("--newest", "4")["actions", "undecodable"]["newest"] == [4, 3, 2, 1]
    code, _, err = run("list", "--reason", "laet")
    assert (code, "There is no reason 'laet'" in err) == (2, True)


def test_show_has_the_bytes_the_record_and_the_remedy(given: KafkaSettings) -> None:
    action: Action = BY_TYPE[Action]
    value = codec(given, ACTIONS).encode(dataclasses.replace(action, watch_ms=-1))
    refuse(given, ACTIONS, value, Reason.OUT_OF_BOUNDS)
    refuse(given, ACTIONS, b"\xff" * 5000, Reason.UNDECODABLE, key=None)
    code, out, _ = run("show", "0", "--json")
    shown = json.loads(out)
    assert code == 0
    assert (shown["value_hex"], shown["key_hex"], shown["key"]) == (value.hex(), "37", "7")
    assert not shown["replayed"]
    assert (shown["record"]["watch_ms"], shown["record"]["kind"]) == (-1, "view")
    assert (shown["topic"], shown["partition"], shown["offset"]) == ("actions", 1, 5)
    assert "mend the producer" in shown["remedy"]
    code, out, _ = run("show", "1")
    assert code == 0
    assert "(5,000 bytes; --json has all)" in out
    assert json.loads(run("show", "1", "--json")[1])["record"] is None
    code, _, err = run("show", "99")
    assert code == 2
    assert "no letter at offset 99" in err


def test_a_letter_is_put_back_as_it_came_and_only_once(given: KafkaSettings) -> None:
    value = codec(given, ACTIONS).encode(BY_TYPE[Action])
    for number in range(3):
        refuse(given, ACTIONS, value, Reason.UNKNOWN_ITEM, offset=number, partition=number)  # of 2 partitions
    refuse(given, ACTIONS, None, Reason.UNDECODABLE, timestamp_ms=-1)
    by_reason = ("replay", "--reason", "unknown_item")
    code, out, _ = run(*by_reason, "--dry-run")
    assert (code, "actions, unknown_item: 3 letters to put back" in out) == (0, True)
    code, out, _ = run(*by_reason, answer="n\n")
    assert (code, "nothing was put back" in out) == (0, True)
    code, _, err = run(*by_reason)
    assert (code, "Give --yes" in err) == (2, True)
    assert put_back(given, ACTIONS, 0) == []

    code, out, err = run("replay", "0", "2", "--yes")
    assert (code, "2 letters put back" in out) == (0, True), err
    code, out, err = run(*by_reason, answer="y\n")
    assert (code, "1 letter put back" in out) == (0, True), err
    assert "2 letters (0, 2) stay: replayed already" in out
    code, out, _ = run(*by_reason, "--yes")
    assert (code, "nothing to put back" in out) == (0, True)
    assert listed()["actions", "unknown_item"]["replayed"] == 3
    assert [json.loads(run("show", str(letter), "--json")[1])["replayed"] for letter in (0, 1, 3)] == [
        True,
        True,
        False,
    ]

    found = put_back(given, ACTIONS, 3)
    assert len(found) == 3
    assert {message.value() for message in found} == {value}
    assert {(message.key(), message.timestamp()) for message in found} == {(b"7", (1, TIME_MS))}
    by_letter = {message.headers()[0]: message.partition() for message in found}
    assert by_letter.keys() == {(REPLAYED_HEADER, b"0"), (REPLAYED_HEADER, b"1"), (REPLAYED_HEADER, b"2")}
    assert (by_letter[REPLAYED_HEADER, b"0"], by_letter[REPLAYED_HEADER, b"1"]) == (0, 1)

    assert run("replay", "0", "3", "--yes", "--again")[0] == 0
    again = put_back(given, ACTIONS, 5)
    assert len(again) == 5
    assert [message.value() for message in again].count(None) == 1
    assert listed()["actions", "unknown_item"]["replayed"] == 3, "a letter counts once"


@pytest.mark.exactly_once
def test_letters_of_which_one_may_be_missing_stay_letters(given: KafkaSettings) -> None:
    """The first of two is refused, the second taken: without a whole transaction neither is put back, or marked."""
    value = codec(given, ACTIONS).encode(BY_TYPE[Action])
    for key in (b"7", b"8"):
        refuse(given, ACTIONS, value, Reason.UNKNOWN_ITEM, key=key)
    planned = plan(given, Selection(reasons={"unknown_item"}))
    with LateLeader(given.bootstrap_servers, clients.topic_name(given, ACTIONS), Api.PRODUCE, together=2) as late:
        one_by_one = {"batch.num.messages": "1", "linger.ms": "0"}
        beyond = given.model_copy(update={"bootstrap_servers": late.bootstrap_servers, "librdkafka": one_by_one})
        with suppress(DependencyMissingError):  # not every broker loses it
            replay(beyond, planned)
        assert late.asked >= 2
    there = committed_keys(given, ACTIONS)
    assert listed()["actions", "unknown_item"]["replayed"] == len(there)
    assert run("replay", "--reason", "unknown_item", "--yes")[0] == 0
    assert committed_keys(given, ACTIONS) == [b"7", b"8"]


def test_what_may_not_be_put_back_stays(given: KafkaSettings) -> None:
    most = given.max_message_bytes
    refuse(given, SESSIONS, b"\x01", Reason.UNDECODABLE)
    refuse(given, "sessions/../items", b"\x01", Reason.UNDECODABLE)
    refuse(given, ACTIONS, b"\x00" * (most + 1), Reason.UNDECODABLE)
    refuse(given, DEAD_LETTERS, b"\x01", Reason.UNDECODABLE)
    code, out, _ = run("replay", "--reason", "undecodable", "--again", "--yes")
    assert code == 0
    assert "nothing to put back" in out
    assert "1 letter (0) stay: sessions is no input topic" in out
    assert "1 letter (2) stay: the letter holds only the beginning of its record" in out
    for arguments, sentence in (((), "Nothing says which letters"), (("77",), "No letter at offset 77")):
        code, _, err = run("replay", "--yes", *arguments)
        assert (code, sentence in err) == (2, True)


def test_an_event_on_an_item_that_is_published_later_becomes_a_session(given: KafkaSettings, tmp_path: Path) -> None:
    feeder = Feeder(given)
    feeder.publish([impression(21, TIME_MS), view(21, TIME_MS + 2_000, 19_000)])
    settings: dict[str, Any] = {"feedback_window_ms": 15_000, "idle_close_s": 1.0, "transaction_ms": 50}
    with JoinerProcess(given, tmp_path, **settings) as joiner:
        until_records(given, DEAD_LETTERS, 2, joiner.output())
        writer = RecordWriter(given)
        tokens = ItemTokens(item_id=21, codes=(0, 0, 0), codebook_version=1, duration_ms=1, tags=(), created_ms=1)
        writer.send(ITEM_TOKENS, id_key(21), tokens)
        writer.flush(60)

        code, out, err = run("replay", "--reason", "unknown_item", "--service", "joiner", "--since", "1h", "--yes")

        assert (code, "2 letters put back" in out) == (0, True), err
        until_records(given, SESSIONS, 1, joiner.output())
        assert joiner.stop() == 0
    (session,) = records(given, SESSIONS)
    assert [(item.item_id, item.time_ms, item.watch_ms) for item in session.items] == [(21, TIME_MS, 19_000)]
    letters = [letter for letter in records(given, DEAD_LETTERS) if letter.reason != Reason.REPLAYED]
    assert {letter.reason for letter in letters} == {"unknown_item"}
    assert run("replay", "--reason", "unknown_item", "--yes")[1].count("stay: replayed already") == 1


def test_without_topics_it_says_so(given: KafkaSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEREC_KAFKA__TOPIC_PREFIX", "nowhere-")
    monkeypatch.setattr(metadata, "APPEAR_TIMEOUT_S", 0.2)
    for arguments in (("list",), ("show", "0"), ("replay", "0", "--yes")):
        code, _, err = run(*arguments)
        assert (code, "onerec topics create" in err) == (3, True), err


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90m", 10**12 - 5_400_000), ("2d", 10**12 - 172_800_000), ("1970-01-01T00:00:01", 1000), ("1970-01-01", 0)],
)
def test_times_of_the_command_line(text: str, expected: int) -> None:
    assert since_ms(text, 10**12) == expected


def test_a_time_that_is_none_is_refused() -> None:
    with pytest.raises(SettingsError, match="is no time"):
        since_ms("yesterday", 0)


def test_a_name_of_a_topic_is_without_its_prefix(given: KafkaSettings) -> None:
    assert clients.topic_name(given, ACTIONS) != "actions"
    code, _, err = run("list", "--topic", clients.topic_name(given, ACTIONS))
    assert (code, "There is no topic" in err) == (2, True)
