"""The users' side of an A/B run: warm-up, then simulated users of all arms; their visits are written to a file."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from evaluation.ab.protocol import ARMS, TOPICS, Form, arm_of
from evaluation.ab.warm_up import send_warm_up, warm_exposures
from evaluation.simulator.crowd import Crowd, Visit
from evaluation.simulator.driver import Driver, Span
from evaluation.simulator.live import HOUR_MS, people, summary_of
from onerec.followers import Followers
from onerec.service import Stop
from onerec.settings import Settings
from stream.replay.kuairand import KuaiRand

LOG = logging.getLogger(__name__)
QUIET_MS = 600_000
"""Between warm-up and users: what was done with the warm-up's last exposures is behind, so that no user is late."""


def run_drive(
    settings: Settings, form: Form, seed: int, out: Path, stop: Stop, *, followers: Mapping[str, int]
) -> None:
    """Write `out`.npz with the visits and `out`.json with what was sent. Raises DependencyMissingError.

    `followers` are metrics ports, by name, of those who must not fall behind the users.
    """
    found = people(form.users, seed)
    warm = warm_exposures(KuaiRand().exposures(), form.warm_exposures)
    send_warm_up(settings, warm, stop)
    begin_ms = int(warm.times_ms[-1]) + QUIET_MS
    end_ms = begin_ms + int(form.hours * HOUR_MS)
    span = Span(begin_ms, end_ms, report_view_ms=settings.stream.joiner.feedback_window_ms - 1_000)
    spread_ms = min(24 * HOUR_MS, end_ms - begin_ms)
    crowd = Crowd(found.simulator, found.items, found.states, seed=seed, begin_ms=begin_ms, spread_ms=spread_ms)
    followed = Followers(followers, stop)
    driver = Driver(
        *(settings.kafka, crowd, span),
        lambda user: TOPICS[arm_of(user, seed)],
        tuple(TOPICS.values()),
        pace=followed.keep_up,
    )
    stop.ready()
    started_s = time.monotonic()
    try:
        driver.run(stop)
    finally:
        driver.close()
    summary = summary_of(driver, crowd, time.monotonic() - started_s)
    summary["unanswered_by_topic"] = dict(driver.unanswered)
    summary["waited_for_followers_s"] = round(followed.waited_s, 1)
    out.with_suffix(".json").write_text(json.dumps(summary, indent=2) + "\n")
    save(crowd.finished, begin_ms, end_ms, seed, out.with_suffix(".npz"))


def save(visits: list[Visit], begin_ms: int, end_ms: int, seed: int, path: Path) -> None:
    """The visits that have ended and showed something, as columns."""
    whole = [visit for visit in visits if visit.shown]
    columns = {
        "user": [visit.user_id for visit in whole],
        "arm": [ARMS.index(arm_of(visit.user_id, seed)) for visit in whole],
        "begin_ms": [visit.begin_ms for visit in whole],
        "watch_ms": [visit.watch_ms for visit in whole],
        "items": [len(visit.shown) for visit in whole],
        "first_item": [visit.shown[0] for visit in whole],
        "likes": [visit.likes for visit in whole],
        "follows": [visit.follows for visit in whole],
    }
    arrays = {name: np.array(column, np.int64) for name, column in columns.items()}
    expected = np.array([visit.expected_watch_ms for visit in whole])
    unfinished = path.with_suffix(".part.npz")
    np.savez_compressed(unfinished, **arrays, expected_watch_ms=expected, span=np.array([begin_ms, end_ms]))  # type: ignore[arg-type]
    unfinished.replace(path)
