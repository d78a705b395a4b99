"""Test, then train: every visit is predicted from what came before it, then learned from. No Kafka here.

Events may come in any order; they wait `settle_ms` of event time, so that the visit they belong to is known with its
outcome, and are then worked through strictly by event time. A visit counts if its user watched one of its
items long or liked one. All systems are scored on the same visits: the baselines rank at the moment of the
request, the answers of served models are taken from where they were given.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from evaluation.baselines.running import SYSTEMS, Baselines
from evaluation.ranking import hit, ndcg
from evaluation.scoreboard import LIVE, Score, Scoreboard
from onerec.settings import EvaluationSettings

FROZEN = "frozen"
ANSWERING = (LIVE, FROZEN)
KEEP_MS = 86_400_000
"""Event time for which an answer waits for its visit, and a visit for its answers."""


class _Step(IntEnum):
    """What happens to a visit; also the order at equal times."""

    ASK = 0
    EXPOSE = 1
    CLOSE = 2


@dataclass(slots=True)
class _Visit:
    user_id: int
    begin_ms: int
    last_ms: int
    positives: set[int] = field(default_factory=set)
    ranked: dict[str, list[int]] | None = None
    earlier: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a served model recommended for a visit; `ranked` is None where it refused to."""

    ranked: tuple[int, ...] | None
    time_ms: int
    history_length: int


class VisitEvaluator:
    """Takes what happens, in any order, and scores visits in the order of event time."""

    def __init__(self, settings: EvaluationSettings, feedback_ms: int, baselines: Baselines) -> None:
        """`feedback_ms`: event time after an exposure within which its actions happen."""
        self.scoreboard = Scoreboard((*ANSWERING, *SYSTEMS), settings.min_history)
        self.answers_ahead: Counter[str] = Counter()
        """By system the answers that built on more exposures than the user had had: they saw the future."""
        self.unanswered: Counter[str] = Counter()
        """Visits that count but for the answer of a system that answers others."""
        self._settings = settings
        self._settle_ms = settings.visit_gap_ms + feedback_ms
        self._baselines = baselines
        self._queue: list[tuple[int, int, int, int, int]] = []
        self._visits: dict[int, _Visit] = {}
        self._waiting: dict[int, _Visit] = {}
        self._answers: dict[str, dict[int, Answer]] = {}
        self._count = 0
        self._done_ms = 0

    def asked(self, request_id: int, user_id: int, time_ms: int) -> None:
        """A request: the moment of the prediction."""
        self._visit(request_id, user_id, time_ms)
        self._push(time_ms, _Step.ASK, request_id, 0)

    def exposed(self, request_id: int, user_id: int, item_id: int, time_ms: int) -> None:
        """An item was shown in the visit of a request."""
        visit = self._visit(request_id, user_id, time_ms)
        visit.last_ms = max(visit.last_ms, time_ms)
        self._push(time_ms, _Step.EXPOSE, request_id, item_id)

    def liked(self, request_id: int, user_id: int, item_id: int, time_ms: int) -> None:
        """The user watched the item long or liked it: it is one of the visit's positives."""
        self._visit(request_id, user_id, time_ms).positives.add(item_id)

    def answered(self, system: str, request_id: int, answer: Answer) -> None:
        """A served model has answered a request."""
        answers = self._answers.setdefault(system, {})
        waiting = self._waiting.get(request_id)
        if waiting is not None and request_id not in answers:
            self._check_ahead(system, answer, waiting)
        if request_id in self._visits or waiting is not None or answer.time_ms + KEEP_MS > self._done_ms:
            answers.setdefault(request_id, answer)
        if waiting is not None and self._complete(request_id):
            self._score(request_id, self._waiting.pop(request_id))

    def advance(self, horizon_ms: int) -> None:
        """Work through what is settled, given that all events up to `horizon_ms` are known."""
        end_ms = horizon_ms - self._settle_ms
        while self._queue and self._queue[0][0] <= end_ms:
            time_ms, step, _, request_id, item_id = heapq.heappop(self._queue)
            self._done_ms = max(self._done_ms, time_ms)
            self._take(_Step(step), request_id, item_id, time_ms)
        self._forget()

    def finish(self) -> None:
        """There will be no more: work through all that is known and score visits without waiting for answers."""
        while self._queue:
            self.advance(self._queue[0][0] + self._settle_ms)
        for request_id, visit in self._waiting.items():
            self._score(request_id, visit)
        self._waiting.clear()

    def _visit(self, request_id: int, user_id: int, time_ms: int) -> _Visit:
        found = self._visits.get(request_id)
        if found is None:
            found = self._visits[request_id] = _Visit(user_id, time_ms, time_ms)
            self._push(time_ms, _Step.CLOSE, request_id, 0)
        return found

    def _push(self, time_ms: int, step: _Step, request_id: int, item_id: int) -> None:
        self._count += 1
        heapq.heappush(self._queue, (time_ms, int(step), self._count, request_id, item_id))

    def _take(self, step: _Step, request_id: int, item_id: int, time_ms: int) -> None:
        visit = self._visits.get(request_id)
        if step is _Step.EXPOSE:
            self._predict(visit, time_ms)
            if visit is not None:
                positive = item_id in visit.positives
                self._baselines.learn(visit.user_id, item_id, time_ms, positive=positive)
        elif step is _Step.ASK:
            self._predict(visit, time_ms)
        elif visit is not None and visit.last_ms > time_ms:
            self._push(visit.last_ms, _Step.CLOSE, request_id, 0)
        elif visit is not None:
            self._close(request_id, visit)

    def _predict(self, visit: _Visit | None, time_ms: int) -> None:
        """Rank at the visit's beginning, unless it is already certain that it has no positive."""
        if visit is None or visit.ranked is not None:
            return
        visit.begin_ms = time_ms
        visit.earlier = self._baselines.exposures_of(visit.user_id)
        still_open = visit.last_ms > time_ms + self._settle_ms - self._settings.visit_gap_ms
        visit.ranked = self._baselines.ranked(visit.user_id) if visit.positives or still_open else {}

    def _close(self, request_id: int, visit: _Visit) -> None:
        del self._visits[request_id]
        for system, answers in self._answers.items():
            if request_id in answers:
                self._check_ahead(system, answers[request_id], visit)
        if not visit.positives or not visit.ranked:
            for answers in self._answers.values():
                answers.pop(request_id, None)
        elif self._complete(request_id):
            self._score(request_id, visit)
        else:
            self._waiting[request_id] = visit

    def _check_ahead(self, system: str, answer: Answer, visit: _Visit) -> None:
        """Users with fewer exposures than a history holds tell; how many of the others, one may conclude from them."""
        self.answers_ahead[system] += answer.history_length > visit.earlier

    def _complete(self, request_id: int) -> bool:
        """Whether all systems that have answered any request have answered this one."""
        return all(request_id in answers for answers in self._answers.values())

    def _score(self, request_id: int, visit: _Visit) -> None:
        rankings: dict[str, Sequence[int]] = dict(visit.ranked or {})
        for system, answers in self._answers.items():
            answer = answers.pop(request_id, None)
            if answer is None or answer.ranked is None:
                self.unanswered[system] += 1
            else:
                rankings[system] = answer.ranked
        scores = {
            name: Score(hit(ranked, visit.positives), ndcg(ranked, visit.positives))
            for name, ranked in rankings.items()
        }
        self.scoreboard.add(visit.begin_ms, visit.earlier, scores)

    def _forget(self) -> None:
        """Give up on answers and visits that have waited too long; both are about in the order of event time."""
        oldest_ms = self._done_ms - KEEP_MS
        while self._waiting:
            request_id = next(iter(self._waiting))
            if self._waiting[request_id].begin_ms > oldest_ms:
                break
            self._score(request_id, self._waiting.pop(request_id))
        for answers in self._answers.values():
            while answers:
                request_id = next(iter(answers))
                if answers[request_id].time_ms > oldest_ms or request_id in self._waiting:
                    break
                del answers[request_id]
