"""Simulated users in event time: who asks when, and what people then do with what they are shown. No Kafka here."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from evaluation.simulator.model import HEADS, Answer, Simulator, marginal
from evaluation.simulator.state import ShownItem, UserState
from stream.replay.visits import request_ids

PAUSE_MS = 1_000
"""From the end of a view to the next item."""
ANSWER_MS = 1_000
"""From a request to the first item."""


@dataclass(slots=True)
class Visit:
    """One visit of a user, from the request to leaving. `shown` are the items so far, in order."""

    user_id: int
    begin_ms: int
    shown: list[int] = field(default_factory=list)
    requests: int = 0
    watch_ms: int = 0
    expected_watch_ms: float = 0.0
    """What the items shown would be watched for on average, drawn over: less noise than `watch_ms`."""
    long_views: int = 0
    likes: int = 0
    follows: int = 0


@dataclass(frozen=True, slots=True)
class Ask:
    """A request that falls due. `visit` holds what the same visit has shown already."""

    request_id: int
    user_id: int
    time_ms: int
    visit: Visit


@dataclass(frozen=True, slots=True)
class Exposed:
    """An item that was shown in answer to a request, and what the user did."""

    request_id: int
    user_id: int
    item: ShownItem
    position: int
    time_ms: int
    answer: Answer


class Crowd:
    """Users of one simulator. Everything random is a function of the seed, the user, the item and the time."""

    def __init__(
        self,
        simulator: Simulator,
        items: Mapping[int, ShownItem],
        states: Mapping[int, UserState],
        *,
        seed: int,
        begin_ms: int,
        spread_ms: int,
    ) -> None:
        """Every user's first visit begins within `spread_ms` from `begin_ms` on."""
        self.finished: list[Visit] = []
        """Visits in the order in which they ended."""
        self._simulator, self._items, self._states, self._seed = simulator, items, dict(states), seed
        ids = sorted(self._states)
        starts = [begin_ms + int(np.random.default_rng([seed, user_id]).integers(spread_ms)) for user_id in ids]
        self._due: list[tuple[int, int, Visit]] = [
            (start, user_id, Visit(user_id, start)) for start, user_id in zip(starts, ids, strict=True)
        ]
        heapq.heapify(self._due)

    def due(self, until_ms: int) -> list[Ask]:
        """The requests of before `until_ms`; each has to get `react` or `unanswered`."""
        found: list[tuple[int, int, Visit]] = []
        while self._due and self._due[0][0] < until_ms:
            found.append(heapq.heappop(self._due))
        if not found:
            return []
        users, times = (np.array(column, np.int64) for column in list(zip(*found, strict=True))[:2])
        ids = request_ids(users, times).tolist()
        return [Ask(one, user_id, at, visit) for one, (at, user_id, visit) in zip(ids, found, strict=True)]

    def react(self, ask: Ask, item_ids: Sequence[int]) -> list[Exposed]:
        """The user looks at the items one after another until leaving, and asks again after the last."""
        state, visit = self._states[ask.user_id], ask.visit
        visit.requests += 1
        time_ms, exposed = ask.time_ms + ANSWER_MS, list[Exposed]()
        for position, item_id in enumerate(item_ids):
            item = self._items.get(item_id)
            if item is None:
                continue
            answer = self._simulator.respond(state, item, time_ms, self._seed)
            visit.expected_watch_ms += expected_watch_ms(self._simulator, state, item, time_ms)
            state.update(item, time_ms, long_view=answer.long_view, like=answer.like, follow=answer.follow)
            exposed.append(Exposed(ask.request_id, ask.user_id, item, position, time_ms, answer))
            visit.shown.append(item_id)
            visit.watch_ms += answer.watch_ms
            visit.long_views += answer.long_view
            visit.likes += answer.like
            visit.follows += answer.follow
            if answer.return_ms is not None:
                self._leave(visit, time_ms + max(answer.return_ms, answer.watch_ms + PAUSE_MS))
                return exposed
            time_ms += answer.watch_ms + PAUSE_MS
        if exposed:
            heapq.heappush(self._due, (time_ms, ask.user_id, visit))
        else:
            self.unanswered(ask)
        return exposed

    def unanswered(self, ask: Ask) -> None:
        """Nothing came: the user leaves and comes back as after any visit."""
        draw = float(np.random.default_rng([self._seed, ask.user_id, ask.time_ms]).random())
        quantiles = self._simulator.return_quantiles
        self._leave(ask.visit, ask.time_ms + int(quantiles[int(draw * len(quantiles))]))

    def _leave(self, visit: Visit, return_ms: int) -> None:
        self.finished.append(visit)
        heapq.heappush(self._due, (return_ms, visit.user_id, Visit(visit.user_id, return_ms)))


def expected_watch_ms(simulator: Simulator, state: UserState, item: ShownItem, time_ms: int) -> float:
    """The mean of the watch time that `respond` draws."""
    row = simulator.features(state, item, time_ms)[None]
    long_view = float(marginal(simulator.weights, row)[0, HEADS.index("long_view")])
    short, long = (_mean_watch_ms(simulator, item.duration_ms, view) for view in (False, True))
    return long_view * long + (1 - long_view) * short


def _mean_watch_ms(simulator: Simulator, duration_ms: int, long_view: bool) -> float:
    places = (np.arange(32) + 0.5) / 32
    return float(np.mean([simulator.watch_ms(duration_ms, long_view, place) for place in places.tolist()]))


def chosen_users(user_ids: Iterable[int], count: int | None, seed: int) -> list[int]:
    """`count` of the users, drawn by the seed; all without a count."""
    ids = np.array(sorted(user_ids), np.int64)
    if count is None or count >= len(ids):
        return [int(one) for one in ids]
    drawn: NDArray[np.int64] = np.random.default_rng(seed).permutation(ids)[:count]
    return [int(one) for one in np.sort(drawn)]
