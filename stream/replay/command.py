"""`python -m stream replay`: reads a log, plans its events and publishes them."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from onerec.errors import SettingsError
from onerec.kafka.writer import RecordWriter
from onerec.service import Stop
from onerec.settings import Settings
from stream.replay.gate import UnansweredGate
from stream.replay.kuairand import DEFAULT_FOLDER, KuaiRand
from stream.replay.log import Log
from stream.replay.messages import event_rows, history_messages, item_messages
from stream.replay.publish import Pace, Sent, send_all, send_events
from stream.replay.schedule import Disorder, schedule
from stream.replay.visits import visits_of

LOG = logging.getLogger(__name__)
PARTS = ("items", "histories", "events")
REPORT_MARGIN_MS = 1_000
"""A view is reported so much before its feedback window closes."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a person asks of the command beyond the settings."""

    only: tuple[str, ...] = PARTS
    data: Path | None = None
    mapping: Path | None = None
    events: int | None = None
    start: str | None = None
    summary: Path | None = None


def run_replay(settings: Settings, options: Options, stop: Stop) -> dict[str, Any]:
    """Publish what the options ask for; the summary, which is also logged and written where asked."""
    unknown = sorted(set(options.only) - set(PARTS))
    if unknown:
        raise SettingsError(f"--only does not know {', '.join(unknown)}.", f"Choose among {', '.join(PARTS)}.")
    log, sent, started_s = log_of(options), Sent(), time.monotonic()
    writer = RecordWriter(settings.kafka)
    gate = None
    if "items" in options.only:
        items = log.items()
        send_all(writer, item_messages(items, _now_ms()), "items", len(items.item_ids), sent, stop)
    if "histories" in options.only and not stop.is_set():
        histories = log.histories(settings.stream.joiner.history_items)
        send_all(writer, history_messages(histories), "histories", len(histories), sent, stop)
    if "events" in options.only and not stop.is_set():
        gate = UnansweredGate(
            settings.kafka, settings.stream.replay.max_unanswered, settings.stream.replay.answer_timeout_s
        )
        try:
            _events(log, settings, options, writer, gate, sent, stop)
        finally:
            gate.close()
    summary = summarised(sent, gate, stop, time.monotonic() - started_s)
    LOG.info("%s", json.dumps(summary))
    if options.summary is not None:
        options.summary.write_text(json.dumps(summary, indent=2) + "\n")
    return summary


def log_of(options: Options) -> Log:
    """The log that the options name: a mapping's, else KuaiRand."""
    if options.mapping is None:
        return KuaiRand(options.data or DEFAULT_FOLDER)
    from stream.replay.mapping import MappedLog  # noqa: PLC0415 - only for somebody's own log

    return MappedLog.read(options.mapping, options.data)


def disorder_of(settings: Settings) -> Disorder:
    """How the events depart from the log."""
    joiner, replay = settings.stream.joiner, settings.stream.replay
    report_ms = replay.view_report_ms
    if report_ms is None:
        report_ms = max(1, joiner.feedback_window_ms - REPORT_MARGIN_MS)
    return Disorder(
        seed=replay.seed,
        shuffle_ms=replay.shuffle_ms,
        late_share=replay.late_share,
        window_ms=joiner.feedback_window_ms + joiner.allowed_lateness_ms,
        view_report_ms=report_ms or None,
    )


def start_ms(text: str | None) -> int | None:
    """Event time of `--start`: an ISO date or time, UTC where it names no zone."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise SettingsError(f"--start {text} is no ISO date or time.", "Write it like 2022-04-27T18:00.") from error
    return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() * 1000)


def summarised(sent: Sent, gate: UnansweredGate | None, stop: Stop, wall_s: float) -> dict[str, Any]:
    """The summary as JSON can hold it."""
    total = sum(sent.records.values())
    return {
        "exposures": sent.exposures,
        "requests": sent.records["requests"],
        "records": dict(sent.records),
        "first_event_ms": sent.first_ms,
        "last_event_ms": sent.last_ms,
        "given_up": 0 if gate is None else gate.given_up,
        "stopped": stop.is_set(),
        "wall_s": round(wall_s, 3),
        "records_per_s": round(total / max(wall_s, 1e-9)),
    }


def _events(
    log: Log,
    settings: Settings,
    options: Options,
    writer: RecordWriter,
    gate: UnansweredGate,
    sent: Sent,
    stop: Stop,
) -> None:
    exposures = log.exposures().window(start_ms(options.start), options.events)
    visits, disorder = visits_of(exposures), disorder_of(settings)
    plan = schedule(exposures, visits, disorder)
    LOG.info("%d exposures in %d visits: %d records", len(exposures), len(visits.request_ids), len(plan))
    rows = event_rows(exposures, visits, plan, disorder.view_report_ms)
    pace = Pace(settings.stream.replay.speed)
    send_events(writer, rows, len(plan), gate=gate, pace=pace, sent=sent, stop=stop)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
