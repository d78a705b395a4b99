"""What the joiner benches feed and how they tell a rate."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import fastavro
import pytest

from bench.brokers import environment_of_services, no_settings_of_the_shell
from bench.environments import PeerMissingError
from bench.joining import feed, in_process, quix_rows, runs
from bench.joining.pinning import pinned
from bench.joining.progress import rates
from onerec.errors import CheckFailedError
from onerec.settings import JoinerSettings
from schemas.codec import Codec
from schemas.topics import ACTIONS, IMPRESSIONS


def test_the_stream_is_in_event_time_and_every_action_has_its_impression() -> None:
    events = list(feed.events(5_000, per_s=5.0))
    assert len(events) == 5_000
    times = [event.time_ms for event in events]
    assert times == sorted(times)
    shown = Counter((e.request, e.item, e.position) for e in events if e.kind is None)
    assert all((e.request, e.item, e.position) in shown for e in events if e.kind is not None)
    assert 0.3 < sum(e.kind is not None for e in events) / 5_000 < 0.5
    assert list(feed.events(100, per_s=5.0)) == events[:100]


def test_records_fit_our_schemas_and_those_of_the_peers_in_java() -> None:
    codecs = {kind: Codec(topic) for kind, topic in (("impressions", IMPRESSIONS), ("actions", ACTIONS))}
    schemas = {kind: fastavro.parse_schema(schema) for kind, schema in feed.JAVA_SCHEMAS.items()}
    for event in feed.events(2_000):
        kind = "impressions" if event.kind is None else "actions"
        record = feed.record_of(event)
        assert codecs[kind].decode(codecs[kind].encode(record)) == record
        assert fastavro.validate(feed._java_record(event), schemas[kind])


def test_rates_are_told_from_the_first_commit_on_and_for_the_second_half() -> None:
    found = rates([(0.0, 100), (1.0, 200), (2.0, 400), (3.0, 900)])
    assert found.all == pytest.approx(800 / 3)
    assert found.warm == pytest.approx(500.0)
    with pytest.raises(CheckFailedError, match="2 commits"):
        rates([(0.0, 1), (1.0, 2)])


@pytest.mark.parametrize("compiled", [True, False])
def test_the_joiner_is_timed_without_a_broker(tmp_path: Path, *, compiled: bool) -> None:
    stream = in_process.messages(10_000, per_s=2.0)
    found = in_process.join(stream, JoinerSettings(**runs.RULES, compiled=compiled), tmp_path)

    assert found["events_per_s"] > 0
    assert {"decode and join", "what falls due", "records to write", "local store"} <= set(found["us_per_event"])
    assert found["records_per_event"] > 0.1, "windows close and sessions come out"


def test_a_joiner_closes_sessions_and_histories_as_the_others_do() -> None:
    user = quix_rows.new_user()
    for number in range(5):
        shown = {"user_id": 7, "request_id": number, "item_id": number, "time_ms": number, "position": 0}
        assert quix_rows.advance(user, shown) == []
        viewed = shown | {"watch_ms": 9, "duration_ms": 10, "kind": "view"}
        del viewed["position"]
        assert quix_rows.advance(user, viewed) == []
    later = {"user_id": 7, "request_id": 9, "item_id": 9, "time_ms": quix_rows.WINDOW_MS + 10, "position": 0}
    session, history = quix_rows.advance(user, later)
    assert [row[quix_rows.ITEM] for row in session["items"]] == list(range(5))
    assert [item for item, _ in history["history"]] == list(range(5))


def test_what_is_started_while_pinned_runs_on_that_core_only() -> None:
    before = os.sched_getaffinity(0)
    with pinned(min(before)):
        assert os.sched_getaffinity(0) == {min(before)}
    assert os.sched_getaffinity(0) == before


def test_without_the_peers_folder_the_bench_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for value in (None, str(tmp_path)):
        monkeypatch.delenv(runs.PEERS, raising=False)
        if value is not None:
            monkeypatch.setenv(runs.PEERS, value)
        with pytest.raises(PeerMissingError, match="names no folder with flink"):
            runs._java_folder("flink")


def test_services_are_started_without_the_settings_of_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (runs.PEERS, "ONEREC_CONFIG", "ONEREC_KAFKA__PARTITIONS"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("ONEREC_LOG", "INFO")
    told = environment_of_services()
    with no_settings_of_the_shell():
        left = {name for name in os.environ if name.startswith("ONEREC_")}
    assert left == {name for name in told if name.startswith("ONEREC_")} == {"ONEREC_LOG"}
    assert os.environ["ONEREC_CONFIG"] == "x"
