"""The log in event time: sessions as the joiner closes them, and the visits that systems are tested on.

Letters: E events of all users in a row, histories first; V visits with a positive; S sessions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.streaming.protocol import BEGIN_MS, MIN_HISTORY, Form, chosen
from evaluation.table1.world import EVERYTHING, Keep, KuaiRandOf, catalogue_of, of_users, with_long_views
from onerec.catalogue import CatalogueSnapshot
from onerec.features import HistoryArrays
from onerec.model.presets import ModelConfig
from onerec.settings import JoinerSettings
from schemas.labels import Label
from schemas.reasons import Reason
from schemas.records import Session
from stream.joiner.exposure import Came, Exposure
from stream.joiner.rows import VIEWED
from stream.joiner.user import NEVER_MS, User
from stream.replay.log import Exposures, Histories, Log, Longs
from stream.replay.messages import history_messages
from stream.replay.schedule import reported_watch_ms
from stream.replay.visits import ASKED_BEFORE_MS, Visits, visits_of

POSITIVE = np.uint8(Label.LONG_VIEW | Label.LIKE)


@dataclass(frozen=True, slots=True)
class Closed:
    """A session and the event time from which on it can be learned from."""

    time_ms: int
    session: Session


@dataclass(frozen=True, slots=True)
class Cases:
    """The visits that count, in the order of event time."""

    user_ids: Longs  # [V]
    begin_ms: Longs  # [V]
    first: Longs  # [V] the user's first event
    known: Longs  # [V] after the last event whose outcome is known when the visit begins
    shown: Longs  # [V] after the last event before the visit
    truth: list[set[int]]  # leaves

    def __len__(self) -> int:
        return len(self.begin_ms)

    def since(self, time_ms: int) -> Cases:
        """Those that begin at `time_ms` or later."""
        at = slice(int(np.searchsorted(self.begin_ms, time_ms)), None)
        return Cases(
            self.user_ids[at], self.begin_ms[at], self.first[at], self.known[at], self.shown[at], self.truth[at]
        )


@dataclass(frozen=True, slots=True)
class Timeline:
    """All that the study is made of."""

    catalogue: CatalogueSnapshot
    histories: Histories
    exposures: Exposures
    visits: Visits
    sessions: list[Closed]  # [S] in the order of their times
    items: Longs  # [E]
    leaves: Longs  # [E]
    labels: NDArray[np.uint8]  # [E]
    cases: Cases

    def past(self) -> list[HistoryArrays]:
        """Histories of before the stream, for the seed."""
        ends = zip(self.histories.starts[:-1].tolist(), self.histories.starts[1:].tolist(), strict=True)
        own = self.histories
        return [HistoryArrays(own.items[a:b], own.times_ms[a:b], own.labels[a:b]) for a, b in ends]

    def history(self, case: int, length: int) -> HistoryArrays:
        """The newest events of a visit's user whose outcome is known when it begins."""
        end = int(self.cases.known[case])
        at = slice(max(int(self.cases.first[case]), end - length), end)
        return HistoryArrays(self.items[at], np.zeros(at.stop - at.start, np.int64), self.labels[at])

    def seen(self, case: int) -> Longs:
        """Leaves of all that a visit's user has been shown before."""
        found: Longs = self.leaves[self.cases.first[case] : self.cases.shown[case]]
        return found


def load(form: Form, config: ModelConfig, joiner: JoinerSettings, log: Log | None = None) -> Timeline:
    """The log of a form; `log` instead of KuaiRand."""
    keep: Keep = lambda user_ids: chosen(user_ids, form.users_of)  # noqa: E731 - named by its type
    source = log or KuaiRandOf(keep)
    items, histories = source.items(), of_users(source.histories(EVERYTHING), keep)
    whole = source.exposures()
    exposures = whole.rows(np.flatnonzero(keep(whole.user_ids) & (whole.times_ms < form.end_ms)))
    catalogue = catalogue_of(items, config)
    visits = visits_of(exposures)
    rows = _Events(histories, exposures)
    return Timeline(
        catalogue=catalogue,
        histories=histories,
        exposures=exposures,
        visits=visits,
        sessions=joined(histories, exposures, visits, joiner),
        items=rows.items,
        leaves=catalogue.leaves(rows.items),
        labels=rows.labels,
        cases=_cases(rows, exposures, visits, catalogue, joiner.feedback_window_ms).since(BEGIN_MS),
    )


class _Events:
    """Every user's events in a row, histories before the stream. `place` [exposures] is where each exposure went."""

    def __init__(self, histories: Histories, exposures: Exposures) -> None:
        users = np.concatenate([np.repeat(histories.user_ids, np.diff(histories.starts)), exposures.user_ids])
        order = np.argsort(users, kind="stable")
        before = len(histories.items)
        self.users: Longs = users[order]
        self.items: Longs = np.concatenate([histories.items, exposures.item_ids])[order]
        self.labels: NDArray[np.uint8] = np.concatenate([histories.labels, with_long_views(exposures)])[order]
        self.times_ms: Longs = np.concatenate([np.zeros(before, np.int64), exposures.times_ms])[order]
        inverse = np.empty(len(order), np.int64)
        inverse[order] = np.arange(len(order))
        self.place: Longs = inverse[before:]


def _cases(
    events: _Events, exposures: Exposures, visits: Visits, catalogue: CatalogueSnapshot, window_ms: int
) -> Cases:
    """The visits with a positive of users with enough earlier exposures."""
    positive = np.flatnonzero(with_long_views(exposures) & POSITIVE)
    leaves = catalogue.leaves(exposures.item_ids)
    truth: dict[int, set[int]] = {}
    for row in positive.tolist():
        if leaves[row] >= 0:
            truth.setdefault(int(visits.of_exposure[row]), set()).add(int(leaves[row]))
    wanted = np.array(sorted(truth), np.int64)
    begin_ms = visits.start_ms[wanted] - ASKED_BEFORE_MS
    opening = np.flatnonzero(visits.positions == 0)
    shown = np.empty(len(visits.request_ids), np.int64)
    shown[visits.of_exposure[opening]] = events.place[opening]
    shown = shown[wanted]
    first = np.searchsorted(events.users, visits.user_ids[wanted])
    known = shown.copy()
    for case, (start, time_ms) in enumerate(zip(first.tolist(), begin_ms.tolist(), strict=True)):
        while known[case] > start and events.times_ms[known[case] - 1] > time_ms - window_ms:
            known[case] -= 1
    kept = np.flatnonzero(shown - first >= MIN_HISTORY)
    order = kept[np.argsort(begin_ms[kept], kind="stable")]
    return Cases(
        visits.user_ids[wanted[order]],
        begin_ms[order],
        first[order],
        known[order],
        shown[order],
        [truth[visit] for visit in wanted[order].tolist()],
    )


class _Sessions:
    """Takes what a user's join gives out."""

    def __init__(self) -> None:
        self.closed: list[Closed] = []
        self.now_ms = 0

    def session(self, session: Session) -> None:
        self.closed.append(Closed(self.now_ms, session))

    def refuse(self, source: str, came: Came, reason: Reason, detail: str) -> None:
        raise AssertionError(f"nothing is late here: {source}, {came}, {reason}, {detail}")


def joined(histories: Histories, exposures: Exposures, visits: Visits, settings: JoinerSettings) -> list[Closed]:
    """What the joiner makes of the exposures, each session with the event time at which it closes."""
    out = _Sessions()
    past = {record.user_id: record for *_, record in history_messages(histories)}
    users: dict[int, User] = {}

    def work_off(user: User, until_ms: int) -> None:
        while user.due_ms <= until_ms:
            out.now_ms = user.due_ms
            user.work_off(user.due_ms, settings, out)

    for user_id, exposure in _exposures(exposures, visits, settings.feedback_window_ms):
        user = users.get(user_id)
        if user is None:
            user = users[user_id] = User.of(user_id, past.get(user_id))
        work_off(user, exposure.time_ms)
        user.open[exposure.key] = exposure
        user.reschedule(settings)
    for user in users.values():
        work_off(user, NEVER_MS - 1)
    return sorted(out.closed, key=lambda closed: closed.time_ms)


def _exposures(exposures: Exposures, visits: Visits, window_ms: int) -> Iterator[tuple[int, Exposure]]:
    """With all that was done with each; watch time is what is reported within the window."""
    columns = (
        exposures.user_ids,
        visits.request_ids[visits.of_exposure],
        exposures.item_ids,
        visits.positions,
        exposures.times_ms,
        exposures.labels,
        reported_watch_ms(exposures, window_ms - 1_000),
        exposures.durations_ms,
    )
    for user_id, request_id, item_id, position, time_ms, labels, watch_ms, duration_ms in zip(
        *(column.tolist() for column in columns), strict=True
    ):
        yield user_id, Exposure(request_id, item_id, position, time_ms, None, 0, labels | VIEWED, watch_ms, duration_ms)
