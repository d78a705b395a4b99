"""`python -m stream replay`: reads a log, plans its events and publishes them."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from onerec.errors import SettingsError
from onerec.followers import Followers
from onerec.kafka.writer import RecordWriter
from onerec.service import Stop
from onerec.settings import LabelSettings, Settings
from schemas.topics import RECOMMENDATIONS, SHADOW_RECOMMENDATIONS
from stream.replay.gate import UnansweredGate
from stream.replay.kuairand import DEFAULT_FOLDER, KuaiRand
from stream.replay.log import Log
from stream.replay.messages import event_rows, history_messages, item_messages
from stream.replay.options import PARTS, Options
from stream.replay.publish import Holds, Pace, Sent, send_all, send_events
from stream.replay.schedule import Disorder, schedule
from stream.replay.visits import visits_of

LOG = logging.getLogger(__name__)
MOST_BEHIND = 200
"""Events that a follower may not have read yet: a second or two of a trainer of preset small."""
REPORT_MARGIN_MS = 1_000
"""A view is reported so much before its feedback window closes."""


def run_replay(settings: Settings, options: Options, stop: Stop) -> dict[str, Any]:
    """Publish what the options ask for; the summary, which is also logged and written where asked.

    Raises SettingsError for wrong options, LogError for a log that does not fit, DependencyMissingError for no broker.
    """
    unknown = sorted(set(options.only) - set(PARTS))
    if unknown:
        raise SettingsError(f"--only does not know {', '.join(unknown)}.", f"Choose among {', '.join(PARTS)}.")
    begin_ms, started_s = start_ms(options.start), time.monotonic()
    job = _Replay(log_of(options, settings.stream.joiner.labels), settings, stop)
    if "items" in options.only:
        job.items()
    if "histories" in options.only and not stop.is_set():
        job.histories()
    if "events" in options.only and not stop.is_set():
        job.events(begin_ms, options.events, options.shift_days, options.followers)
    summary = job.summary(time.monotonic() - started_s)
    LOG.info("%s", json.dumps(summary))
    if options.summary is not None:
        options.summary.write_text(json.dumps(summary, indent=2) + "\n")
    return summary


class _Replay:
    def __init__(self, log: Log, settings: Settings, stop: Stop) -> None:
        self._log = log
        self._settings = settings
        self._stop = stop
        self._writer = RecordWriter(settings.kafka)
        self._sent = Sent()
        self._given_up = 0

    def items(self) -> None:
        items = self._log.items()
        messages = item_messages(items, time.time_ns() // 1_000_000)
        send_all(self._writer, messages, "items", len(items.item_ids), sent=self._sent, stop=self._stop)

    def histories(self) -> None:
        histories = self._log.histories(self._settings.stream.joiner.history_items)
        messages = history_messages(histories)
        send_all(self._writer, messages, "histories", len(histories), sent=self._sent, stop=self._stop)

    def events(self, begin_ms: int | None, count: int | None, shift_days: int, followers: Mapping[str, int]) -> None:
        exposures = self._log.exposures().window(begin_ms, count).later(shift_days)
        visits, disorder = visits_of(exposures), disorder_of(self._settings)
        plan = schedule(exposures, visits, disorder)
        LOG.info("%d exposures in %d visits: %d records", len(exposures), len(visits.request_ids), len(plan))
        rows = event_rows(exposures, visits, plan, disorder.view_report_ms)
        replay = self._settings.stream.replay
        topics = (RECOMMENDATIONS, SHADOW_RECOMMENDATIONS) if replay.await_shadow else (RECOMMENDATIONS,)
        gate = UnansweredGate(self._settings.kafka, replay.max_unanswered, replay.answer_timeout_s, topics=topics)
        holds = Holds(gate, Pace(replay.speed), Followers(followers, self._stop, most_behind=MOST_BEHIND))
        try:
            send_events(self._writer, rows, len(plan), holds=holds, sent=self._sent, stop=self._stop)
        finally:
            gate.close()
        self._given_up = gate.given_up

    def summary(self, wall_s: float) -> dict[str, Any]:
        sent = self._sent
        return {
            "exposures": sent.exposures,
            "requests": sent.records["requests"],
            "records": dict(sent.records),
            "first_event_ms": sent.first_ms,
            "last_event_ms": sent.last_ms,
            "given_up": self._given_up,
            "stopped": self._stop.is_set(),
            "wall_s": round(wall_s, 3),
            "records_per_s": round(sum(sent.records.values()) / max(wall_s, 1e-9)),
        }


def log_of(options: Options, labels: LabelSettings) -> Log:
    """The log that the options name: a mapping's, else KuaiRand."""
    if options.mapping is None:
        return KuaiRand(options.data or DEFAULT_FOLDER)
    from stream.replay.mapping import MappedLog  # noqa: PLC0415 - only for somebody's own log

    return MappedLog.read(options.mapping, options.data, labels)


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
        ask_ahead_ms=replay.ask_ahead_ms,
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
