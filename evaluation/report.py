"""What the topics say about a run, read afresh from beginning to end: `python -m evaluation report`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluation.completion import INPUTS, InputClock, due_ms
from evaluation.feed import Feed
from evaluation.freshness import STAGES, Learned, served, stages_ms
from evaluation.journal import audit, stepped_ms, steps
from evaluation.leakage import learned_sessions
from onerec.kafka.reader import Received
from onerec.settings import JoinerSettings, KafkaSettings
from schemas.reasons import Reason
from schemas.records import (
    Action,
    DeadLetter,
    Impression,
    ItemTokens,
    JournalEntry,
    ModelVersion,
    PreferencePair,
    Recommendation,
    Request,
    Session,
    Status,
    VersionStatus,
)
from schemas.topics import (
    DEAD_LETTERS,
    ITEM_TOKENS,
    MODEL_VERSIONS,
    PREFERENCES,
    RECOMMENDATIONS,
    REQUESTS,
    SESSIONS,
    TRAINER_JOURNAL,
)

TOPICS = (ITEM_TOKENS, SESSIONS, REQUESTS, RECOMMENDATIONS, PREFERENCES, MODEL_VERSIONS, TRAINER_JOURNAL, DEAD_LETTERS)
TIMEOUT_S = 600.0
Longs = npt.NDArray[np.int64]
NTP = "next_token"
LOSS_STEPS = 50
"""The first and the last loss are means over so many steps."""


def summarise(kafka: KafkaSettings, joiner: JoinerSettings | None = None) -> dict[str, Any]:
    """Read all that the topics hold as of now and sum it up; the keys are those of the demo's report.

    With the joiner's settings the events that sessions are made of are read, too, and freshness is told by stages.
    Raises DependencyMissingError for no broker or no topics.
    """
    feed, ledger = Feed(kafka, TOPICS if joiner is None else (*TOPICS, *INPUTS)), Ledger(joiner)
    try:
        feed.read_to_end(ledger.take, TIMEOUT_S)
    finally:
        feed.close()
    return ledger.summary() | {"skipped_records": feed.skipped}


class Ledger:
    """Takes in records of the topics in any order and sums them up."""

    def __init__(self, joiner: JoinerSettings | None = None) -> None:
        """The joiner's settings say when a session was complete; without them that is not told."""
        self._joiner = joiner
        self._clock = InputClock()
        self._due_ms: list[int] = []
        self._first_tokens: dict[int, int] = {}
        self._session_offsets: dict[int, list[int]] = {}
        self._session_ids: set[int] = set()
        self._exposures: list[Learned] = []
        self._asked_ms: dict[int, int] = {}
        self._answers: list[_Answer] = []
        self._statuses: dict[int, Status] = {}
        self._pair_offsets: dict[int, list[int]] = {}
        self._rewards: dict[int, tuple[float, ...]] = {}
        self._versions: dict[int, dict[int, int]] = {}
        self._created_ms: dict[int, int] = {}
        self._journal: list[JournalEntry] = []
        self._refused: Counter[str] = Counter()
        self._take: dict[type, Callable[[Received, Any], None]] = {
            ItemTokens: self._tokens,
            Session: self._session,
            Request: self._request,
            Recommendation: self._recommendation,
            PreferencePair: self._pair,
            ModelVersion: self._version,
            JournalEntry: lambda _, record: self._journal.append(record),
            Impression: self._event,
            Action: self._event,
            DeadLetter: lambda _, record: self._refused.update({record.reason} - {Reason.REPLAYED}),
        }

    def take(self, received: Iterable[Received]) -> None:
        """Take in records."""
        for each in received:
            self._take[type(each.record)](each, each.record)

    def summary(self) -> dict[str, Any]:
        """All figures as JSON can hold them."""
        every = steps(self._journal)
        counted = [entry for entry in every if entry.ranges]  # steps of the seed consume no offsets
        sessions = audit(SESSIONS.name, self._session_offsets, counted)
        pairs = audit(PREFERENCES.name, self._pair_offsets, counted)
        return {
            "sessions": len(self._session_ids),
            "sessions_repeated": sessions.records - len(self._session_ids),
            "sessions_trained": sessions.applied,
            "lost": sessions.lost,
            "duplicated": sessions.duplicated,
            **self._answering(),
            "versions_published": len(self._versions),
            "dead_letters": self._refused.total(),
            "dead_letters_by_reason": dict(self._refused),
            "preference_pairs": len(self._rewards),
            "pairs_trained": pairs.applied,
            "pairs_lost": pairs.lost,
            "pairs_duplicated": pairs.duplicated,
            "reward": self._reward(),
            "loss": _loss(counted),
            "seed_steps": len(every) - len(counted),
            "steps": len(counted),
            "steps_refused": sum(entry.refused is not None for entry in counted),
            **self._freshness(counted),
        }

    def _answering(self) -> dict[str, Any]:
        statuses = Counter(self._statuses.values())
        latencies = [
            answer.produced_ms - self._asked_ms[answer.request_id]
            for answer in self._answers
            if answer.request_id in self._asked_ms
        ]
        answered = {request_id for request_id, status in self._statuses.items() if status is Status.ANSWERED}
        return {
            "requests": len(self._asked_ms),
            "recommendations": len(answered),
            "recommendations_repeated": len(self._answers) - len(answered),
            "unanswered": len(self._asked_ms.keys() - answered),
            "overloaded": statuses[Status.OVERLOADED],
            "refused": statuses[Status.REFUSED],
            "invalid_items": sum(map(self._invalid, self._answers)),
            "duplicate_items_in_session": sum(
                len(answer.session) - len(set(answer.session)) for answer in self._answers
            ),
            "request_latency_ms": quantiles(latencies),
        }

    def _invalid(self, answer: _Answer) -> int:
        """How many of an answer's items the catalogue did not hold at the offset that the answer names."""
        none = answer.catalogue_offset
        return sum(self._first_tokens.get(item, none) >= answer.catalogue_offset for item in answer.items)

    def _reward(self) -> dict[str, float | None]:
        """Means over the pairs: of the scalar, standardised over a request's candidates, and of watch time alone."""
        names = ("chosen_mean", "rejected_mean", "chosen_swt_mean", "rejected_swt_mean")
        if not self._rewards:
            return dict.fromkeys(names)
        means = np.array(list(self._rewards.values())).mean(axis=0)
        return {name: round(float(mean), 5) for name, mean in zip(names, means, strict=True)}

    def _freshness(self, counted: list[JournalEntry]) -> dict[str, Any]:
        answers = [(answer.version, answer.produced_ms) for answer in self._answers]
        found = served(self._exposures, self._versions, answers)
        produced_ms = np.array([each.produced_ms for each in self._exposures], np.int64)
        waits = (found.at_ms - produced_ms)[found.known]
        told = {
            "freshness_s": _seconds(waits),
            "exposures_served": len(waits),
            "exposures_not_served": len(self._exposures) - len(waits),
        }
        if self._joiner is None:
            return told
        places = np.array([(each.partition, each.offset) for each in self._exposures], np.int64).reshape(-1, 2)
        complete_ms = self._complete_ms(places[:, 0])
        kept = found.known & (complete_ms >= 0)
        created_ms = [self._created_ms[number] for number in sorted(self._versions)]
        stepped = stepped_ms(SESSIONS.name, places, counted)
        stages = stages_ms(self._exposures, found, complete_ms, stepped, created_ms)
        return told | {
            "sample_freshness_s": _seconds((found.at_ms - complete_ms)[kept]),
            "freshness_stages_s": {name: _seconds(stages[name]) for name in STAGES},
        }

    def _complete_ms(self, partitions: Longs) -> Longs:
        """[E] when each exposure's session was complete, -1 where no event says so."""
        due = np.array(self._due_ms, np.int64)
        return np.where(due < 0, -1, self._clock.reached_ms(partitions, due))

    def _event(self, received: Received, record: Impression | Action) -> None:
        place = received.partition, received.offset
        self._clock.add(received.topic.name, place, record.time_ms, record.produced_ms)

    def _tokens(self, received: Received, record: ItemTokens) -> None:
        self._first_tokens.setdefault(record.item_id, received.offset)

    def _session(self, received: Received, record: Session) -> None:
        self._session_offsets.setdefault(received.partition, []).append(received.offset)
        if record.session_id not in self._session_ids:
            self._session_ids.add(record.session_id)
            place = received.partition, received.offset
            self._exposures.extend(Learned(*place, item.produced_ms) for item in record.items)
            due = due_ms(record, self._joiner) if self._joiner is not None else None
            self._due_ms.extend([-1 if due is None else due] * len(record.items))

    def _request(self, _: Received, record: Request) -> None:
        self._asked_ms.setdefault(record.request_id, record.produced_ms)

    def _recommendation(self, _: Received, record: Recommendation) -> None:
        if record.status is Status.ANSWERED or record.request_id not in self._statuses:
            self._statuses[record.request_id] = record.status
        if record.status is Status.ANSWERED:
            self._answers.append(_Answer(record))

    def _pair(self, received: Received, record: PreferencePair) -> None:
        self._pair_offsets.setdefault(received.partition, []).append(received.offset)
        chosen, rejected = record.chosen_rewards, record.rejected_rewards
        self._rewards[record.pair_id] = chosen.scalar, rejected.scalar, chosen.swt, rejected.swt

    def _version(self, _: Received, record: ModelVersion) -> None:
        if record.status is VersionStatus.PUBLISHED:
            self._versions[record.version] = learned_sessions(record)
            self._created_ms[record.version] = record.created_ms


class _Answer:
    """What is kept of a recommendation."""

    __slots__ = ("catalogue_offset", "items", "produced_ms", "request_id", "session", "version")

    def __init__(self, record: Recommendation) -> None:
        self.request_id = record.request_id
        self.version = record.model_version
        self.produced_ms = record.produced_ms
        self.catalogue_offset = record.catalogue_offset
        self.session = [item.item_id for item in record.session]
        self.items = {*self.session, *(item.item_id for item in record.ranked)}


def quantiles(values: list[float] | list[int], digits: int = 1) -> dict[str, float | None]:
    """Median and 99th percentile; None where there are no values."""
    if not values:
        return {"p50": None, "p99": None}
    p50, p99 = np.quantile(np.array(values, dtype=np.float64), (0.5, 0.99))
    return {"p50": round(float(p50), digits), "p99": round(float(p99), digits)}


def _seconds(waits_ms: Longs) -> dict[str, float | None]:
    return quantiles((waits_ms / 1000).tolist(), digits=3)


def _loss(counted: list[JournalEntry]) -> dict[str, float | None]:
    losses = [entry.loss[NTP] for entry in counted if NTP in entry.loss and entry.refused is None]
    if not losses:
        return {"first": None, "last": None}
    ends = losses[:LOSS_STEPS], losses[-LOSS_STEPS:]
    first, last = (round(sum(part) / len(part), 5) for part in ends)
    return {"first": first, "last": last}
