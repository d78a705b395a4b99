"""The baselines over a recorded log without Kafka: the same code as the live evaluator, minutes instead of days."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

from evaluation.baselines.running import Baselines
from evaluation.visits import VisitEvaluator
from onerec.settings import Settings
from schemas.labels import Label
from stream.replay.command import log_of
from stream.replay.log import Exposures, Log
from stream.replay.options import Options
from stream.replay.visits import ASKED_BEFORE_MS, visits_of

LOG = logging.getLogger(__name__)
ADVANCE_EVERY = 1000


def run_offline(settings: Settings, events: int | None, report: Path | None) -> dict[str, Any]:
    """Score the baselines on the first `events` exposures of the log that ships with this; the figures."""
    started_s = time.monotonic()
    labels = settings.stream.joiner.labels
    evaluator = score_log(settings, log_of(Options(), labels), events)
    found = evaluator.scoreboard.summary() | {"wall_s": round(time.monotonic() - started_s, 1)}
    shown = {key: value for key, value in found.items() if not isinstance(value, list | dict) and value is not None}
    LOG.info("%s", json.dumps(shown))
    if report is not None:
        report.write_text(json.dumps(found, indent=2) + "\n")
    return found


def score_log(settings: Settings, log: Log, events: int | None) -> VisitEvaluator:
    """Feed a log's histories and exposures, in event-time order, to an evaluator."""
    exposures = log.exposures().window(None, events)
    histories = log.histories(settings.stream.joiner.history_items)
    baselines = Baselines(settings.evaluation)
    starts = histories.starts.tolist()
    for row, user_id in enumerate(histories.user_ids.tolist()):
        baselines.add_history(user_id, histories.items[starts[row] : starts[row + 1]].tolist())
    evaluator = VisitEvaluator(settings.evaluation, settings.stream.joiner.feedback_window_ms, baselines)
    _feed(evaluator, exposures, settings)
    evaluator.finish()
    return evaluator


def _feed(evaluator: VisitEvaluator, exposures: Exposures, settings: Settings) -> None:
    visits = visits_of(exposures, settings.evaluation.visit_gap_ms)
    rule = settings.stream.joiner.labels
    columns = (
        visits.request_ids[visits.of_exposure],
        exposures.user_ids,
        exposures.item_ids,
        exposures.times_ms,
        visits.positions,
        exposures.watch_ms,
        exposures.durations_ms,
        exposures.labels,
    )
    rows = zip(*(column.tolist() for column in columns), strict=True)
    for count, (request_id, user_id, item_id, time_ms, position, watch_ms, duration_ms, labels) in enumerate(rows):
        if position == 0:
            evaluator.asked(request_id, user_id, time_ms - ASKED_BEFORE_MS)
        evaluator.exposed(request_id, user_id, item_id, time_ms)
        if labels & Label.LIKE or rule.is_long_view(watch_ms, duration_ms):
            evaluator.liked(request_id, user_id, item_id, time_ms)
        if not count % ADVANCE_EVERY:
            evaluator.advance(time_ms)
