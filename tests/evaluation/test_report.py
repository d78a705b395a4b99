"""The report of a small run made by hand, on a broker."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from evaluation.__main__ import app
from evaluation.report import summarise
from onerec.kafka.writer import RecordWriter
from onerec.settings import JoinerSettings, KafkaSettings
from schemas.reasons import Reason
from schemas.records import (
    Action,
    ActionKind,
    ClosedBy,
    DeadLetter,
    Impression,
    ItemTokens,
    JournalEntry,
    JournalKind,
    OffsetRange,
    PreferencePair,
    Recommendation,
    RecommendedItem,
    Request,
    Rewards,
    Session,
    SessionItem,
    Status,
)
from schemas.topics import (
    ACTIONS,
    DEAD_LETTERS,
    IMPRESSIONS,
    ITEM_TOKENS,
    MODEL_VERSIONS,
    PREFERENCES,
    RECOMMENDATIONS,
    REQUESTS,
    SESSIONS,
    TRAINER_JOURNAL,
    Topic,
    id_key,
)
from tests.evaluation.test_leakage import version

pytestmark = pytest.mark.broker
NOW = 1_650_000_000_000


def tokens(item_id: int) -> ItemTokens:
    return ItemTokens(
        item_id=item_id, codes=(1, 2, item_id), codebook_version=1, duration_ms=1, tags=(), created_ms=NOW
    )


def session(session_id: int, *produced_ms: int) -> Session:
    items = tuple(
        SessionItem(
            item_id=1,
            request_id=session_id,
            position=place,
            time_ms=NOW,
            watch_ms=1,
            duration_ms=1,
            labels=0,
            produced_ms=NOW + at,
        )
        for place, at in enumerate(produced_ms)
    )
    return Session(
        session_id=session_id,
        user_id=1,
        history_items=b"",
        history_times_ms=b"",
        history_labels=b"",
        items=items,
        start_ms=NOW,
        end_ms=NOW,
        total_watch_ms=1,
        high_quality=False,
        closed_by=ClosedBy.GAP,
    )


def request(request_id: int, at: int) -> Request:
    return Request(request_id=request_id, user_id=1, time_ms=NOW, produced_ms=NOW + at)


def answer(request_id: int, at: int, number: int, items: list[int], catalogue_offset: int = 3) -> Recommendation:
    recommended = tuple(RecommendedItem(item_id=item, log_prob=-1.0) for item in items)
    return Recommendation(
        request_id=request_id,
        user_id=1,
        status=Status.ANSWERED if items else Status.OVERLOADED,
        session=recommended,
        session_log_prob=-1.0,
        ranked=recommended[:1],
        model_version=number,
        catalogue_offset=catalogue_offset,
        history_length=0,
        time_ms=NOW,
        produced_ms=NOW + at,
        latency_ms=1.0,
    )


def pair(pair_id: int, chosen: float, rejected: float) -> PreferencePair:
    def rewards(scalar: float) -> Rewards:
        return Rewards(swt=scalar / 2, vtr=0.5, wtr=0.5, ltr=0.5, scalar=scalar)

    return PreferencePair(
        pair_id=pair_id,
        request_id=1,
        user_id=1,
        time_ms=NOW,
        history_items=b"",
        history_times_ms=b"",
        history_labels=b"",
        chosen=(1, 2),
        rejected=(2, 3),
        chosen_log_prob=-1.0,
        rejected_log_prob=-2.0,
        chosen_rewards=rewards(chosen),
        rejected_rewards=rewards(rejected),
        candidates=2,
        model_version=1,
        catalogue_offset=3,
    )


def step(number: int, first: int, end: int, loss: float, refused: str | None = None) -> JournalEntry:
    ranges = tuple(
        OffsetRange(topic=topic, partition=0, first_offset=first, next_offset=end, records=end - first, applied=1)
        for topic in ("sessions", "preferences")
    )
    return JournalEntry(
        model="onerec",
        step=number,
        kind=JournalKind.STEP,
        epoch=1,
        ranges=ranges,
        seed=0,
        learning_rate=1e-4,
        loss={"next_token": loss},
        refused=refused,
        environment={},
        time_ms=NOW,
    )


def letter() -> DeadLetter:
    return DeadLetter(
        topic="actions",
        partition=0,
        offset=0,
        timestamp_ms=NOW,
        reason=str(Reason.LATE),
        detail="",
        service="joiner",
        time_ms=NOW,
    )


@pytest.fixture
def run(kafka: KafkaSettings) -> KafkaSettings:
    """Sessions 0..4 in partition 0; steps that apply 0..2 twice over 1 and never 4; two versions, four requests."""
    writer = RecordWriter(kafka)
    records: list[tuple[Topic, bytes | None, Any]] = [
        *((ITEM_TOKENS, id_key(item), tokens(item)) for item in (1, 2, 3, 4)),
        *((SESSIONS, id_key(1), session(number, 100, 200)) for number in (0, 1, 2, 3, 3)),
        *((REQUESTS, id_key(1), request(number, 10 * number)) for number in (1, 2, 3, 4)),
        (RECOMMENDATIONS, id_key(1), answer(1, 20, 1, [1, 2])),
        (RECOMMENDATIONS, id_key(1), answer(2, 1200, 2, [1, 1, 3])),
        (RECOMMENDATIONS, id_key(1), answer(2, 1300, 2, [4, 9])),
        (RECOMMENDATIONS, id_key(1), answer(3, 1300, 0, [])),
        (PREFERENCES, id_key(1), pair(1, 0.5, 0.1)),
        (PREFERENCES, id_key(1), pair(2, 0.7, 0.3)),
        (PREFERENCES, id_key(1), pair(2, 0.7, 0.3)),
        (MODEL_VERSIONS, b"onerec", version(1, {})),
        (MODEL_VERSIONS, b"onerec", version(2, {0: 2})),
        (TRAINER_JOURNAL, b"onerec", replace(step(0, 0, 1, loss=8.0), ranges=())),
        (TRAINER_JOURNAL, b"onerec", step(1, 0, 2, loss=3.0)),
        (TRAINER_JOURNAL, b"onerec", step(2, 1, 3, loss=9.0, refused="not finite")),
        (TRAINER_JOURNAL, b"onerec", step(3, 3, 4, loss=2.0)),
        (DEAD_LETTERS, None, letter()),
    ]
    for topic, key, record in records:
        writer.send(topic, key, record, partition=0)
    writer.flush(60)
    return kafka


def test_counts(run: KafkaSettings) -> None:
    found = summarise(run)
    assert (found["sessions"], found["sessions_repeated"], found["sessions_trained"]) == (4, 1, 3)
    assert (found["lost"], found["duplicated"]) == (1, 1)
    assert (found["preference_pairs"], found["pairs_trained"]) == (2, 3)
    assert (found["seed_steps"], found["steps"], found["steps_refused"]) == (1, 3, 1)
    assert found["versions_published"] == 2
    assert found["loss"] == {"first": 2.5, "last": 2.5}
    rewards = {"chosen_mean": 0.6, "rejected_mean": 0.2, "chosen_swt_mean": 0.3, "rejected_swt_mean": 0.1}
    assert found["reward"] == rewards
    assert (found["dead_letters"], found["dead_letters_by_reason"]) == (1, {"late": 1})


def test_answers(run: KafkaSettings) -> None:
    found = summarise(run)
    assert (found["requests"], found["recommendations"], found["recommendations_repeated"]) == (4, 2, 1)
    assert (found["unanswered"], found["overloaded"], found["refused"]) == (2, 1, 0)
    # Item 4 came at offset 3, which the answer had not read; item 9 does not exist.
    assert found["invalid_items"] == 2
    assert found["duplicate_items_in_session"] == 1
    assert found["request_latency_ms"]["p50"] == 1180.0


def test_freshness_is_to_the_first_answer_that_knows(run: KafkaSettings) -> None:
    found = summarise(run)
    # Version 2 knows sessions 0 and 1, whose exposures were complete at 100 and 200; it first answers at 1200.
    assert found["freshness_s"]["p50"] == 1.05
    assert (found["exposures_served"], found["exposures_not_served"]) == (4, 4)


def test_freshness_by_stages(run: KafkaSettings) -> None:
    """Sessions closed by a gap wait for the event that shows it, which was produced at 300; steps came at 0."""
    writer = RecordWriter(run)
    later_ms = NOW + 3_600_000
    shown = Impression(request_id=9, user_id=1, item_id=1, position=0, time_ms=later_ms, produced_ms=NOW + 300)
    seen = Action(request_id=9, user_id=1, item_id=1, kind=ActionKind.LIKE, time_ms=later_ms, produced_ms=NOW + 250)
    writer.send(IMPRESSIONS, id_key(1), shown, partition=0)
    writer.send(ACTIONS, id_key(1), seen, partition=0)
    writer.flush(60)
    found = summarise(run, JoinerSettings())
    assert found["freshness_s"]["p50"] == 1.05
    assert found["sample_freshness_s"] == {"p50": 0.9, "p99": 0.9}
    assert found["freshness_stages_s"]["feedback"]["p50"] == 0.15


def test_an_empty_log_has_a_report(kafka: KafkaSettings) -> None:
    found = summarise(kafka, JoinerSettings())
    assert found["sample_freshness_s"] == {"p50": None, "p99": None}
    assert found["sessions"] == found["requests"] == found["lost"] == 0
    assert found["freshness_s"] == found["request_latency_ms"] == {"p50": None, "p99": None}
    assert found["loss"] == {"first": None, "last": None}


def test_the_command_writes_it(run: KafkaSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("bootstrap_servers", "topic_prefix", "group_prefix"):
        monkeypatch.setenv(f"ONEREC_KAFKA__{key.upper()}", getattr(run, key))
    assert CliRunner().invoke(app, ["report", "--out", str(tmp_path / "report.json")]).exit_code == 0
    assert json.loads((tmp_path / "report.json").read_text()) == summarise(run, JoinerSettings())
