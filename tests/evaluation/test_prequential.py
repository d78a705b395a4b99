"""The live evaluator on a broker: the same figures as without one, answers scored, leaks found."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from evaluation.offline import score_log
from evaluation.prequential import run_prequential
from onerec.kafka.writer import RecordWriter
from onerec.service import Stop
from onerec.settings import KafkaSettings, Settings, load_settings
from schemas.packed import pack_longs
from schemas.records import (
    ClosedBy,
    History,
    Recommendation,
    RecommendedItem,
    Session,
    SessionItem,
    Status,
)
from schemas.topics import (
    HISTORIES,
    MODEL_VERSIONS,
    RECOMMENDATIONS,
    SESSIONS,
    SHADOW_RECOMMENDATIONS,
    Topic,
    id_key,
)
from stream.replay.log import Exposures
from stream.replay.messages import event, event_rows, history_messages
from stream.replay.schedule import Disorder, schedule
from stream.replay.visits import Visits, visits_of
from tests.evaluation.small_log import SmallLog
from tests.evaluation.test_leakage import version

pytestmark = pytest.mark.broker
EVENTS = 600
LOG = SmallLog(users=400)


@pytest.fixture(scope="module")
def exposures() -> Exposures:
    return LOG.exposures().window(None, EVENTS)


class Told(Stop):
    """Says when it is ready."""

    def __init__(self) -> None:
        super().__init__("evaluator")
        self.is_ready = threading.Event()

    def ready(self) -> None:
        super().ready()
        self.is_ready.set()


def settings_of(kafka: KafkaSettings) -> Settings:
    return load_settings(kafka=kafka.model_dump(), evaluation={"min_history": 0})


def send_histories(writer: RecordWriter) -> None:
    for topic, key, timestamp_ms, record in history_messages(LOG.histories(50)):
        writer.send(topic, key, record, timestamp_ms=timestamp_ms)
    writer.flush(60)


def send_events(writer: RecordWriter, exposures: Exposures) -> None:
    plan = schedule(exposures, visits_of(exposures), Disorder())
    for _, kind, row in event_rows(exposures, visits_of(exposures), plan, None):
        topic, record = event(kind, row, 1)
        writer.send(topic, id_key(record.user_id), record, timestamp_ms=record.time_ms)
    writer.flush(60)


def evaluated(kafka: KafkaSettings, tmp_path: Path) -> dict[str, Any]:
    """Run the evaluator over what the topics hold."""
    stop = Stop("evaluator")
    stop.set()
    run_prequential(settings_of(kafka), tmp_path / "report.json", stop)
    found: dict[str, Any] = json.loads((tmp_path / "report.json").read_text())
    return found


def answer(visits: Visits, visit: int, ranked: list[int], *, number: int, status: Status = Status.ANSWERED) -> Any:
    return Recommendation(
        request_id=int(visits.request_ids[visit]),
        user_id=int(visits.user_ids[visit]),
        status=status,
        session=(),
        session_log_prob=0.0,
        ranked=tuple(RecommendedItem(item_id=item, log_prob=-1.0) for item in ranked),
        model_version=number,
        catalogue_offset=7583,
        history_length=0,
        time_ms=int(visits.start_ms[visit]) - 1000,
        produced_ms=1,
        latency_ms=1.0,
    )


def session(visits: Visits, visit: int) -> Session:
    time_ms = int(visits.start_ms[visit])
    item = SessionItem(
        item_id=1,
        request_id=int(visits.request_ids[visit]),
        position=0,
        time_ms=time_ms,
        watch_ms=0,
        duration_ms=0,
        labels=0,
        produced_ms=1,
    )
    return Session(
        session_id=visit,
        user_id=int(visits.user_ids[visit]),
        history_items=b"",
        history_times_ms=b"",
        history_labels=b"",
        items=(item,),
        start_ms=time_ms,
        end_ms=time_ms,
        total_watch_ms=0,
        high_quality=False,
        closed_by=ClosedBy.GAP,
    )


def test_live_figures_are_the_offline_figures(kafka: KafkaSettings, tmp_path: Path, exposures: Exposures) -> None:
    expected = score_log(settings_of(kafka), LOG, EVENTS).scoreboard.summary()
    writer = RecordWriter(kafka)
    send_histories(writer)
    stop, path = Told(), tmp_path / "report.json"
    following = threading.Thread(target=run_prequential, args=(settings_of(kafka), path, stop))
    following.start()
    assert stop.is_ready.wait(120)
    send_events(writer, exposures)
    # What the joiner writes while the stream runs is newer than the first event and must not be learned twice.
    newer = History(
        user_id=31_000_000,
        history_items=pack_longs([1]),
        history_times_ms=pack_longs([int(exposures.times_ms[-1])]),
        history_labels=b"\x01",
        updated_ms=int(exposures.times_ms[-1]),
    )
    writer.send(HISTORIES, id_key(newer.user_id), newer)
    writer.flush(60)
    stop.set()
    following.join(120)
    assert not following.is_alive()
    found = json.loads(path.read_text())
    assert expected["visits_with_a_positive"] > 150
    assert {key: found[key] for key in expected} == expected
    assert found["skipped_records"] == 0


def test_answers_are_scored_and_leaks_counted(kafka: KafkaSettings, tmp_path: Path, exposures: Exposures) -> None:
    writer, visits = RecordWriter(kafka), visits_of(exposures)
    send_histories(writer)
    send_events(writer, exposures)
    shown: dict[int, list[int]] = {}
    for visit, item in zip(visits.of_exposure.tolist(), exposures.item_ids.tolist(), strict=True):
        shown.setdefault(visit, []).append(item)

    def send(topic: Topic, record: Any, key: bytes = b"1", partition: int | None = None) -> None:
        writer.send(topic, key, record, partition=partition)

    for visit in range(len(visits.request_ids)):
        send(RECOMMENDATIONS, answer(visits, visit, shown[visit], number=2))
        send(SHADOW_RECOMMENDATIONS, answer(visits, visit, [1_000_000], number=1))
    for visit in range(3):
        send(SESSIONS, session(visits, visit), partition=0)
    send(MODEL_VERSIONS, version(2, {0: 1}), key=b"onerec")
    writer.flush(60)
    found = evaluated(kafka, tmp_path)
    assert found["visits"] > 50
    assert found["hit_rate_at_10"] == 1.0
    assert found["frozen_hit_rate_at_10"] == 0.0
    assert found["paired"]["frozen"]["hit_rate"] == 1.0
    assert 0 < found["popularity_hit_rate_at_10"] < 1
    # Version 2 had learned the session at offset 0 of partition 0, which held the first visit.
    assert (found["leaked"], found["leakage_checked"]) == (1, 3)
    assert found["frozen_answers_by_other_versions"] == 0


def test_a_frozen_worker_that_is_not_frozen_is_noticed(
    kafka: KafkaSettings, tmp_path: Path, exposures: Exposures
) -> None:
    writer, visits = RecordWriter(kafka), visits_of(exposures)
    for number, status in ((1, Status.ANSWERED), (2, Status.ANSWERED), (0, Status.OVERLOADED)):
        record = answer(visits, number, [5], number=number, status=status)
        writer.send(SHADOW_RECOMMENDATIONS, id_key(record.user_id), record)
    writer.flush(60)
    assert evaluated(kafka, tmp_path)["frozen_answers_by_other_versions"] == 1
