"""Whatever is spoiled on the topics is found, as what it is and where it is, and nothing else is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from audit.exposure import session_id
from audit.findings import Findings, Kind
from onerec.kafka.admin import create_topics
from onerec.settings import KafkaSettings
from schemas.records import JournalEntry, JournalKind, OffsetRange, Session
from schemas.topics import (
    ACTIONS,
    DEAD_LETTERS,
    HISTORIES,
    IMPRESSIONS,
    MODEL_VERSIONS,
    PREFERENCES,
    RECOMMENDATIONS,
    REQUESTS,
    SESSIONS,
    TRAINER_JOURNAL,
)
from tests.audit.bus_log import audit_bus
from tests.audit.joining import WITNESS
from tests.audit.world import BATCH, RULES, UNREAD, World, range_of
from tests.stream.joiner.running import ROOT

Found = tuple[str, Kind, str, int]
"""Line, kind, topic and offset of a finding."""


def audited(world: World) -> Findings:
    return audit_bus(world.bus, RULES, answered=True, first=50)


def found(findings: Findings) -> set[Found]:
    failing = (Kind.MISSING, Kind.EXTRA, Kind.DOUBLE, Kind.WRONG)
    return {(p.line, p.kind, p.topic, p.offset) for p in findings.places if p.kind in failing}


def shown(world: World, user_id: int, time_ms: int) -> int:
    """Offset of the impression."""
    records = world.records(IMPRESSIONS)
    return next(n for n, record in enumerate(records) if (record.user_id, record.time_ms) == (user_id, time_ms))


def a_session_is_missing(world: World) -> set[Found]:
    session = world.records(SESSIONS)[7]
    world.hide(SESSIONS, 7)
    journal = step_of(world, 7)
    world.change(TRAINER_JOURNAL, journal, lambda e: {"ranges": tuple(map(less, e.ranges))})
    return {(SESSIONS.name, Kind.MISSING, IMPRESSIONS.name, shown(world, session.user_id, session.start_ms))}


def the_last_session_is_missing(world: World) -> set[Found]:
    """It was closed because the stream stood still, as others were after it."""
    sessions = world.records(SESSIONS)
    offset = next(
        n
        for n in range(len(sessions) - UNREAD, len(sessions))
        if sessions[n].closed_by == "idle" and sessions[n].user_id < WITNESS
    )
    session = sessions[offset]
    world.log(SESSIONS).pop(offset)
    return {(SESSIONS.name, Kind.MISSING, IMPRESSIONS.name, shown(world, session.user_id, session.start_ms))}


def a_session_comes_twice(world: World) -> set[Found]:
    session = world.records(SESSIONS)[11]
    return {(SESSIONS.name, Kind.DOUBLE, SESSIONS.name, world.append(SESSIONS, b"%d" % session.user_id, session))}


def a_session_has_a_wrong_label(world: World) -> set[Found]:
    def spoil(session: Session) -> dict[str, Any]:
        first, *others = session.items
        return {"items": (replace(first, labels=first.labels ^ 8), *others)}

    return {(SESSIONS.name, Kind.WRONG, SESSIONS.name, world.change(SESSIONS, 7, spoil))}


def a_session_has_a_wrong_history(world: World) -> set[Found]:
    offset = next(n for n, session in enumerate(world.records(SESSIONS)) if len(session.history_labels) == 4)
    world.change(
        SESSIONS, offset, lambda s: {"history_labels": bytes([s.history_labels[0] ^ 8, *s.history_labels[1:]])}
    )
    return {(SESSIONS.name, Kind.WRONG, SESSIONS.name, offset)}


def a_session_has_another_id(world: World) -> set[Found]:
    offset = world.change(SESSIONS, 7, lambda s: {"session_id": s.session_id ^ 1})
    return {(SESSIONS.name, Kind.WRONG, SESSIONS.name, offset)}


def a_session_of_what_was_never_shown(world: World) -> set[Found]:
    session = world.records(SESSIONS)[7]
    item = replace(session.items[0], request_id=777)
    other = replace(session, items=(item,), session_id=session_id(session.user_id, 777, item.item_id, item.time_ms))
    return {(SESSIONS.name, Kind.EXTRA, SESSIONS.name, world.append(SESSIONS, b"%d" % session.user_id, other))}


def the_newest_history_lacks_an_exposure(world: World) -> set[Found]:
    offset = len(world.log(HISTORIES)) - 1
    world.change(
        HISTORIES,
        offset,
        lambda h: {
            "history_items": h.history_items[:-8],
            "history_times_ms": h.history_times_ms[:-8],
            "history_labels": h.history_labels[:-1],
        },
    )
    return {(HISTORIES.name, Kind.WRONG, HISTORIES.name, offset)}


def a_letter_is_missing(world: World) -> set[Found]:
    letter = world.records(DEAD_LETTERS)[0]
    world.hide(DEAD_LETTERS, 0)
    return {(ACTIONS.name, Kind.MISSING, ACTIONS.name, letter.offset)}


def a_letter_comes_twice(world: World) -> set[Found]:
    letter = world.records(DEAD_LETTERS)[0]
    return {("dead letters", Kind.DOUBLE, DEAD_LETTERS.name, world.append(DEAD_LETTERS, b"1", letter))}


def two_steps_consume_the_same(world: World) -> set[Found]:
    journal = step_of(world, 7)
    world.change(TRAINER_JOURNAL, journal, lambda e: {"ranges": tuple(map(earlier, e.ranges))})
    first = world.records(TRAINER_JOURNAL)[journal].ranges[0].first_offset
    return {("sessions learned", Kind.DOUBLE, SESSIONS.name, first)}


def no_step_consumes_a_session(world: World) -> set[Found]:
    journal = step_of(world, 7)
    first = world.records(TRAINER_JOURNAL)[journal].ranges[0].first_offset
    world.change(TRAINER_JOURNAL, journal, lambda e: {"ranges": tuple(map(later, e.ranges))})
    return {("sessions learned", Kind.MISSING, SESSIONS.name, first)}


def a_step_is_missing(world: World) -> set[Found]:
    journal = step_of(world, 7)
    ranges = world.records(TRAINER_JOURNAL)[journal].ranges
    world.hide(TRAINER_JOURNAL, journal)
    after = next(n for n, e in enumerate(world.records(TRAINER_JOURNAL)) if n > journal and e.kind is JournalKind.STEP)
    return {
        (TRAINER_JOURNAL.name, Kind.MISSING, TRAINER_JOURNAL.name, after),
        ("sessions learned", Kind.MISSING, SESSIONS.name, ranges[0].first_offset),
        (MODEL_VERSIONS.name, Kind.WRONG, MODEL_VERSIONS.name, 1),
    }


def a_record_is_applied_twice(world: World) -> set[Found]:
    again = world.append(SESSIONS, world.log(SESSIONS)[0].key or b"", world.records(SESSIONS)[0])
    step = max(entry.step for entry in world.records(TRAINER_JOURNAL)) + 1
    world.journal_entry(JournalKind.STEP, step, ranges=(range_of(SESSIONS, again - UNREAD, again + 1),))
    return {
        ("sessions learned", Kind.DOUBLE, SESSIONS.name, again - UNREAD),
        (SESSIONS.name, Kind.DOUBLE, SESSIONS.name, again),
    }


def a_version_claims_too_much(world: World) -> set[Found]:
    offset = world.change(
        MODEL_VERSIONS,
        2,
        lambda v: {"offsets": tuple(replace(o, next_offset=o.next_offset + 1) for o in v.offsets)},
    )
    return {(MODEL_VERSIONS.name, Kind.WRONG, MODEL_VERSIONS.name, offset)}


def a_version_has_other_weights(world: World) -> set[Found]:
    return {
        (
            MODEL_VERSIONS.name,
            Kind.WRONG,
            MODEL_VERSIONS.name,
            world.change(MODEL_VERSIONS, 2, lambda _: {"sha256": "f" * 64}),
        )
    }


def a_version_is_not_in_the_journal(world: World) -> set[Found]:
    version = world.records(MODEL_VERSIONS)[-1]
    extra = replace(version, version=99)
    return {(MODEL_VERSIONS.name, Kind.EXTRA, MODEL_VERSIONS.name, world.append(MODEL_VERSIONS, b"onerec", extra))}


def a_request_has_no_answer(world: World) -> set[Found]:
    world.hide(RECOMMENDATIONS, 3)
    return {(REQUESTS.name, Kind.MISSING, REQUESTS.name, 3)}


def an_answer_is_of_another_user(world: World) -> set[Found]:
    offset = world.change(RECOMMENDATIONS, 3, lambda r: {"user_id": r.user_id + 1})
    return {(RECOMMENDATIONS.name, Kind.WRONG, RECOMMENDATIONS.name, offset)}


def a_pair_is_of_no_request(world: World) -> set[Found]:
    return {(PREFERENCES.name, Kind.EXTRA, PREFERENCES.name, world.change(PREFERENCES, 1, lambda _: {"request_id": 5}))}


def a_pair_has_another_id(world: World) -> set[Found]:
    offset = world.change(PREFERENCES, 1, lambda p: {"pair_id": p.pair_id ^ 1})
    return {(PREFERENCES.name, Kind.WRONG, PREFERENCES.name, offset)}


SPOILINGS = [
    a_session_is_missing,
    the_last_session_is_missing,
    a_session_comes_twice,
    a_session_has_a_wrong_label,
    a_session_has_a_wrong_history,
    a_session_has_another_id,
    a_session_of_what_was_never_shown,
    the_newest_history_lacks_an_exposure,
    a_letter_is_missing,
    a_letter_comes_twice,
    two_steps_consume_the_same,
    no_step_consumes_a_session,
    a_step_is_missing,
    a_record_is_applied_twice,
    a_version_claims_too_much,
    a_version_has_other_weights,
    a_version_is_not_in_the_journal,
    a_request_has_no_answer,
    an_answer_is_of_another_user,
    a_pair_is_of_no_request,
    a_pair_has_another_id,
]


def step_of(world: World, session_offset: int) -> int:
    """Offset in the journal of the step that consumed it."""
    return next(
        n
        for n, entry in enumerate(world.records(TRAINER_JOURNAL))
        if entry.kind is JournalKind.STEP and holds(entry, session_offset)
    )


def holds(entry: JournalEntry, offset: int) -> bool:
    return any(r.topic == SESSIONS.name and r.first_offset <= offset < r.next_offset for r in entry.ranges)


def less(each: OffsetRange) -> OffsetRange:
    """One record less in it."""
    return replace(each, records=each.records - 1, applied=each.applied - 1)


def earlier(each: OffsetRange) -> OffsetRange:
    """It begins with a record that another step has applied."""
    return replace(each, first_offset=each.first_offset - 1, records=each.records + 1)


def later(each: OffsetRange) -> OffsetRange:
    """It leaves its first record out."""
    return replace(less(each), first_offset=each.first_offset + 1)


def test_topics_as_they_must_be_audit_clean() -> None:
    findings = audited(World())

    assert not found(findings), "\n".join(map(str, findings.places))
    learned = findings.line("sessions learned")
    assert (learned.expected, learned.counts[Kind.OPEN]) == (learned.found, UNREAD)
    assert learned.found > 5 * BATCH
    assert findings.versions[-1].sessions > findings.versions[1].sessions > findings.versions[0].sessions == 0
    assert findings.line("dead letters").found > 0


@pytest.mark.parametrize("spoil", SPOILINGS, ids=lambda spoil: spoil.__name__)
def test_what_is_spoiled_is_found_where_it_is(spoil: Callable[[World], set[Found]]) -> None:
    world = World()
    wanted = spoil(world)

    findings = audited(world)

    assert found(findings) == wanted, "\n".join(map(str, findings.places))
    assert not findings.clean


def test_a_broker_that_serves_what_was_aborted_repeats_and_that_is_told_apart() -> None:
    world = World()
    session = world.records(SESSIONS)[7]
    offset = world.append(SESSIONS, b"%d" % session.user_id, session)

    findings = audit_bus(world.bus, RULES, answered=True, broker_repeats_allowed=True)

    assert findings.clean
    (repeated,) = [place for place in findings.places if place.kind is Kind.REPEATED]
    assert (repeated.topic, repeated.offset) == (SESSIONS.name, offset)


SPOILED_TOGETHER = [
    the_last_session_is_missing,
    a_session_comes_twice,
    a_session_has_a_wrong_label,
    a_session_has_a_wrong_history,
    the_newest_history_lacks_an_exposure,
    two_steps_consume_the_same,
    a_version_claims_too_much,
    a_request_has_no_answer,
    a_pair_has_another_id,
]


def onerec_audit(kafka: KafkaSettings, directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """`onerec audit` on the topics of a test."""
    rules = RULES.model_dump(include={"session_items", "session_gap_ms", "feedback_window_ms", "history_items"})
    lines = ["[kafka]", f'bootstrap_servers = "{kafka.bootstrap_servers}"', "partitions = 1"]
    lines += [f'topic_prefix = "{kafka.topic_prefix}"', f'group_prefix = "{kafka.group_prefix}"']
    lines += [f"broker_patience_s = {kafka.broker_patience_s}"]
    lines += ["[stream.joiner]", "known_items_only = false", *(f"{name} = {value}" for name, value in rules.items())]
    config = directory / "onerec.toml"
    config.write_text("\n".join(lines))
    command = [sys.executable, "-m", "onerec", "audit", "--config", str(config), "--first", "50", *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.broker
@pytest.mark.parametrize("spoilings", [[], SPOILED_TOGETHER], ids=["as it must be", "spoiled"])
def test_the_command_on_a_real_broker(
    bare_kafka: KafkaSettings, tmp_path: Path, spoilings: list[Callable[[World], set[Found]]]
) -> None:
    kafka = bare_kafka.model_copy(update={"partitions": 1})
    create_topics(kafka)
    world = World()
    wanted = set().union(*(spoil(world) for spoil in spoilings))
    world.put_on(kafka)

    done = onerec_audit(kafka, tmp_path, "--json", str(tmp_path / "audit.json"))

    assert done.returncode == (4 if spoilings else 0), done.stdout + done.stderr
    report = json.loads((tmp_path / "audit.json").read_text())
    places = {(p["line"], p["kind"], p["topic"], p["offset"]) for p in report["places"]}
    assert {place for place in places if place[1] not in ("open", "repeated")} == wanted, done.stdout
    assert report["clean"] == (not spoilings)
    for line, kind, topic, offset in wanted:
        assert f"{kind}  {line}: {topic}[0]@{offset}: " in done.stdout
    assert f"{report['lost']} lost, {report['duplicated']} double, {report['wrong']} wrong" in done.stdout


def test_no_broker_is_a_sentence(tmp_path: Path) -> None:
    done = onerec_audit(KafkaSettings(bootstrap_servers="127.0.0.1:1", broker_patience_s=1.0), tmp_path)

    assert done.returncode == 3
    assert "No Kafka broker answers at 127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr
