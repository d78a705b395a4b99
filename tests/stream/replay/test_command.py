"""The whole command on a broker: what is published, in which order, and the same each time."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from evaluation.feed import Feed
from onerec.errors import SettingsError
from onerec.kafka.reader import Received
from onerec.service import Stop
from onerec.settings import KafkaSettings, Settings, load_settings
from schemas.records import ActionKind, Request
from schemas.topics import ACTIONS, HISTORIES, IMPRESSIONS, REQUESTS
from stream.__main__ import app
from stream.replay.command import run_replay, start_ms
from stream.replay.log import Exposures
from stream.replay.options import Options
from stream.replay.publish import Pace

EVENTS = 400


def settings_of(kafka: KafkaSettings, **replay: Any) -> Settings:
    return load_settings(kafka=kafka.model_dump(), stream={"replay": replay})


def everything(kafka: KafkaSettings) -> list[Received]:
    feed = Feed(kafka, (REQUESTS, IMPRESSIONS, ACTIONS, HISTORIES))
    found: list[Received] = []
    feed.read_to_end(found.extend, 120)
    feed.close()
    return found


@pytest.mark.broker
def test_a_log_sent_again_ten_days_later_is_one_of_new_visits(kafka: KafkaSettings) -> None:
    days_ms = 10 * 86_400_000
    for shift_days in (0, 10):
        run_replay(settings_of(kafka), Options(only=("events",), events=60, shift_days=shift_days), Stop("replay"))
    asked = [each.record for each in everything(kafka) if each.topic == REQUESTS]
    middle = min(each.time_ms for each in asked) + days_ms // 2
    first = {(each.user_id, each.time_ms): each.request_id for each in asked if each.time_ms < middle}
    again = {(each.user_id, each.time_ms - days_ms): each.request_id for each in asked if each.time_ms >= middle}
    assert first.keys() == again.keys()
    assert not set(first.values()) & set(again.values())


@pytest.mark.broker
def test_events_are_published_once_in_event_time_order(kafka: KafkaSettings, tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    options = Options(only=("events",), events=EVENTS, summary=path)
    summary = run_replay(settings_of(kafka), options, Stop("replay"))
    found = everything(kafka)
    assert json.loads(path.read_text()) == summary
    assert summary["exposures"] == EVENTS == summary["records"]["impressions"]
    assert sum(summary["records"].values()) == len(found)
    assert not summary["stopped"]
    asked = {each.record.request_id: each.record for each in found if each.topic == REQUESTS}
    assert len(asked) == summary["requests"]
    last: dict[tuple[str, int], int] = {}
    for each in found:
        assert each.timestamp_ms == each.record.time_ms
        assert each.record.time_ms >= last.get((each.topic.name, each.partition), 0)
        last[each.topic.name, each.partition] = each.record.time_ms
        assert asked[each.record.request_id].user_id == each.record.user_id
        assert asked[each.record.request_id].time_ms <= each.record.time_ms
    views = [each.record for each in found if each.topic == ACTIONS and each.record.kind is ActionKind.VIEW]
    assert len(views) == EVENTS
    assert max(view.watch_ms for view in views) == 119_000


@pytest.mark.broker
def test_the_same_arguments_publish_the_same_records(kafka: KafkaSettings) -> None:
    settings = settings_of(kafka, shuffle_ms=30_000, late_share=0.2, seed=3)
    options = Options(only=("events",), events=100, start="2022-04-27")

    def published(skip: int) -> list[tuple[Any, ...]]:
        run_replay(settings, options, Stop("replay"))
        every = everything(kafka)
        fresh = sorted(every, key=lambda each: (each.topic.name, each.partition, each.offset))
        kept = [each for each in fresh if each.offset >= counts.get((each.topic.name, each.partition), 0)]
        for each in every:
            counts[each.topic.name, each.partition] = each.offset + 1
        assert len(every) == skip + len(kept)
        return [(each.topic.name, each.partition, replace(each.record, produced_ms=0)) for each in kept]

    counts: dict[tuple[str, int], int] = {}
    first = published(0)
    assert first == published(len(first))
    assert min(record.time_ms for _, _, record in first) >= start_ms("2022-04-27T00:00Z")


@pytest.mark.broker
def test_histories_are_published_with_unknown_times(kafka: KafkaSettings, histories: Any) -> None:
    settings = settings_of(kafka)
    summary = run_replay(settings, Options(only=("histories",)), Stop("replay"))
    assert summary["records"] == {"histories": 26_469}
    found = {each.record.user_id: each.record for each in everything(kafka)}
    assert len(found) == 26_469
    record = found[int(histories.user_ids[5])]
    mine = slice(histories.starts[5], histories.starts[6])
    assert record.history_items == histories.items[mine].astype("<i8").tobytes()
    assert record.history_labels == histories.labels[mine].tobytes()
    assert not any(record.history_times_ms)


@pytest.mark.broker
def test_stopping_leaves_whole_records_and_a_true_summary(kafka: KafkaSettings) -> None:
    class Soon(Stop):
        asked = 0

        def is_set(self) -> bool:
            self.asked += 1
            return self.asked > 500

    summary = run_replay(settings_of(kafka), Options(only=("events",)), Soon("replay"))
    assert summary["stopped"]
    assert 0 < sum(summary["records"].values()) < 500
    assert len(everything(kafka)) == sum(summary["records"].values())


@pytest.mark.broker
def test_pauses_for_answers_that_do_not_come(kafka: KafkaSettings) -> None:
    settings = settings_of(kafka, max_unanswered=5, answer_timeout_s=0.01)
    summary = run_replay(settings, Options(only=("events",), events=30), Stop("replay"))
    requests = [each for each in everything(kafka) if isinstance(each.record, Request)]
    assert summary["requests"] == len(requests)
    assert summary["given_up"] >= len(requests) - 5


def test_pace_turns_event_time_into_wall_time() -> None:
    class Waits(Stop):
        waited = 0.0

        def wait(self, timeout_s: float) -> bool:
            self.waited = timeout_s
            return False

    stop, pace, began_s = Waits("replay"), Pace(60.0), time.monotonic()
    pace.wait(1_000_000, stop)
    pace.wait(1_000_000 + 600_000, stop)
    assert 10.0 - (time.monotonic() - began_s) <= stop.waited <= 10.0
    free = Waits("replay")
    Pace(0.0).wait(10**12, free)
    assert free.waited == 0.0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (Options(only=("items", "sessions")), "--only does not know sessions"),
        (Options(start="soon"), "--start soon is no ISO date"),
        (Options(mapping=Path("nowhere.toml")), r"nowhere\.toml does not exist"),
        (Options(data=Path("nowhere")), r"videos\.parquet does not exist"),
    ],
)
def test_wrong_options_are_named(options: Options, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        run_replay(settings_of(KafkaSettings()), options, Stop("replay"))


def test_a_wrong_option_ends_the_command_with_its_sentence() -> None:
    command = [sys.executable, "-m", "stream", "replay", "--only", "sessions"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--only does not know sessions. Choose among items, histories, events." in done.stderr


def test_help_needs_no_broker_and_lists_the_options() -> None:
    shown = CliRunner().invoke(app, ["replay", "--help"])
    assert shown.exit_code == 0
    for option in ("--speed", "--max-unanswered", "--late-share", "--mapping"):
        assert option in shown.output


def test_the_onerec_command_hands_over_with_all_options() -> None:
    command = [sys.executable, "-c", "from onerec.cli.app import main; main()", "replay", "--only", "sessions"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--only does not know sessions" in done.stderr


def test_a_window_starts_where_it_is_told(exposures: Exposures) -> None:
    first = exposures.window(start_ms("2022-04-27T18:00+02:00"), 1)
    assert 0 <= first.times_ms[0] - 1_651_075_200_000 < 600_000
