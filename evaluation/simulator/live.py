"""`python -m evaluation simulate`: simulated users against a running system, in place of a replayed log."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.simulator.crowd import Crowd, Visit, chosen_users
from evaluation.simulator.driver import Driver, Span
from evaluation.simulator.fit import fit_on_kuairand, half_of, is_held_out, states_of
from evaluation.simulator.model import Simulator
from evaluation.simulator.state import ShownItem, UserState
from evaluation.table1.world import of_users
from onerec.service import Stop
from onerec.settings import Settings
from schemas.topics import IMPRESSIONS, RECOMMENDATIONS
from stream.replay.kuairand import KuaiRand

LOG = logging.getLogger(__name__)
HOUR_MS = 3_600_000
FIT_USERS = 4_000
"""Enough for the heads, which have 14 coefficients each; all users take longer and change little."""


@dataclass(frozen=True, slots=True)
class People:
    """A fitted simulator and the held-out half of the users, as they were before the log."""

    simulator: Simulator
    items: dict[int, ShownItem]
    states: dict[int, UserState]


def people(count: int | None, seed: int, fit_users: int | None = FIT_USERS) -> People:
    """`count` users, drawn by the seed, whom the simulator was not fitted on."""
    simulator, _, items = fit_on_kuairand(fit_users)
    histories = half_of(KuaiRand(), is_held_out).histories
    drawn = chosen_users(histories.user_ids.tolist(), count, seed)
    own = of_users(histories, lambda user_ids: np.isin(user_ids, drawn))
    return People(simulator, items, states_of(own, items, simulator.rates))


@dataclass(frozen=True, slots=True)
class Options:
    """What a person asks of the command."""

    users: int | None = None
    hours: float = 48.0
    exposures: int | None = None
    seed: int = 1
    summary: Path | None = None


def run_simulate(
    settings: Settings, options: Options, stop: Stop, make: Callable[[int | None, int], People] = people
) -> dict[str, Any]:
    """Simulate from where the log begins; the summary, which is also logged and written where asked.

    Raises DependencyMissingError for no broker or no topic.
    """
    found, started_s = make(options.users, options.seed), time.monotonic()
    begin_ms = int(KuaiRand().exposures().times_ms[0])
    span = Span(
        begin_ms,
        begin_ms + int(options.hours * HOUR_MS),
        exposures=options.exposures,
        report_view_ms=settings.stream.joiner.feedback_window_ms - 1_000,
    )
    crowd = Crowd(
        found.simulator,
        found.items,
        found.states,
        seed=options.seed,
        begin_ms=begin_ms,
        spread_ms=min(24 * HOUR_MS, span.end_ms - begin_ms),
    )
    driver = Driver(settings.kafka, crowd, span, lambda _: RECOMMENDATIONS.name, (RECOMMENDATIONS.name,))
    stop.ready()
    try:
        driver.run(stop)
    finally:
        driver.close()
    summary = summary_of(driver, crowd, time.monotonic() - started_s)
    LOG.info("%s", json.dumps(summary))
    if options.summary is not None:
        options.summary.write_text(json.dumps(summary, indent=2) + "\n")
    return summary


def summary_of(driver: Driver, crowd: Crowd, wall_s: float) -> dict[str, Any]:
    """What was sent, and what the visits that have ended were like."""
    visits = [visit for visit in crowd.finished if visit.shown]
    items = max(1, sum(len(visit.shown) for visit in visits))
    return {
        "exposures": driver.sent[IMPRESSIONS.name],
        "records": dict(driver.sent),
        "unanswered": sum(driver.unanswered.values()),
        "visits": len(visits),
        "watch_time_per_visit_s": round(float(np.mean([visit.watch_ms for visit in visits] or [0])) / 1000, 3),
        "by_quarter": by_quarter(visits),
        "likes_per_1000": round(1000 * sum(visit.likes for visit in visits) / items, 2),
        "follows_per_1000": round(1000 * sum(visit.follows for visit in visits) / items, 2),
        "items_per_visit": round(float(np.mean([len(visit.shown) for visit in visits] or [0])), 3),
        "latency_ms_p50": round(float(np.median(driver.latencies_ms or [0.0])), 1),
        "wall_s": round(wall_s, 1),
    }


def by_quarter(visits: Sequence[Visit]) -> list[dict[str, Any]]:
    """What each quarter of the visits was like, the earliest first; empty for fewer than eight visits.

    Mean and standard error of a visit's expected watch time, the share of items watched long, and how many different
    items were shown. Users and hours of the quarters differ: it shows where the loop goes, and is no comparison.
    """
    if len(visits) < 8:
        return []
    found = []
    for rows in np.array_split(np.arange(len(visits)), 4):
        own = [visits[row] for row in rows.tolist()]
        watch_s = np.array([visit.expected_watch_ms for visit in own]) / 1000
        error = float(watch_s.std(ddof=1) / np.sqrt(len(own)))
        shown = [item for visit in own for item in visit.shown]
        found.append(
            {
                "expected_watch_time_s": [round(float(watch_s.mean()), 3), round(error, 3)],
                "long_view_share": round(sum(visit.long_views for visit in own) / max(1, len(shown)), 4),
                "different_items": len(set(shown)),
            }
        )
    return found
