"""Requests against answers, and preference pairs against requests, partition by partition."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import numpy as np
from confluent_kafka import Message
from numpy.typing import NDArray

from audit.findings import Findings, Kind
from audit.learned import Consumable
from audit.log import Log
from audit.refusals import Refusals
from audit.spool import places
from onerec.kafka.registry import codec
from onerec.kafka.watermarks import Bounds
from onerec.settings import Settings
from schemas.bounds import violation
from schemas.codec import Codec, DecodeError
from schemas.records import Status
from schemas.topics import PREFERENCES, RECOMMENDATIONS, REQUESTS, Topic

WORKER = "worker"
EVER_MS = 2**62
STATUSES = tuple(Status)
Longs = NDArray[np.int64]


class AnswersAudit:
    """Every request is answered, or told why not; every pair is of a request."""

    def __init__(
        self,
        log: Log,
        settings: Settings,
        findings: Findings,
        refusals: Refusals,
        *,
        committed: Mapping[int, int],
        bounds: Mapping[tuple[str, int], Bounds],
    ) -> None:
        """`committed` of the worker's group, `bounds` of answers and pairs, taken in this order."""
        self._log, self._settings, self._findings, self._refusals = log, settings, findings, refusals
        self._committed, self._bounds = committed, bounds

    def run(self, partition: int) -> Consumable:
        """One partition; its pairs, for the audit of what was learned."""
        answers = self._read(RECOMMENDATIONS, partition, self._bounds[RECOMMENDATIONS.name, partition])
        pairs = self._read(PREFERENCES, partition, self._bounds[PREFERENCES.name, partition])
        requests = self._read(REQUESTS, partition, self._log.bounds(REQUESTS)[REQUESTS.name, partition])
        self._check_requests(partition, requests, answers)
        self._check_answers(partition, requests, answers)
        self._check_pairs(partition, requests, pairs)
        return Consumable(pairs[:, 0].copy(), pairs[:, 3].copy())

    def _read(self, topic: Topic, partition: int, bounds: Bounds) -> Longs:
        """Offset, request, user, and of an answer its status, of a pair its id; [records, 4]."""
        topic_codec, values = codec(self._settings.kafka, topic), array("q")
        for offset, message in places(self._log.messages(topic, partition, bounds)):
            record = self._record(topic, topic_codec, message, partition)
            if record is None:
                if topic is PREFERENCES:
                    values.extend((offset, -1, -1, -1))
                continue
            more = 0
            if topic is RECOMMENDATIONS:
                more = STATUSES.index(record.status)
            elif topic is PREFERENCES:
                more = record.pair_id
            values.extend((offset, record.request_id, record.user_id, more))
        return np.frombuffer(values, np.int64).reshape(-1, 4)

    def _record(self, topic: Topic, topic_codec: Codec, message: Message, partition: int) -> Any:
        """The record of a message; None where it is none, which for requests the worker's dead letters must say."""
        offset, problem, record = message.offset() or 0, "", None
        try:
            record = topic_codec.decode(message.value())
            broken = violation(record, EVER_MS)
            problem = "" if broken is None else f"{broken[0]}: {broken[1]}"
        except DecodeError as error:
            problem = str(error)
        if not problem:
            return record
        if topic is not REQUESTS:
            self._add(topic, Kind.WRONG, partition, offset, problem)
        elif offset < self._committed.get(partition, 0) and offset not in self._refused(partition):
            self._add(topic, Kind.MISSING, partition, offset, f"neither answered nor in dead-letters: {problem}")
        return None

    def _check_requests(self, partition: int, requests: Longs, answers: Longs) -> None:
        line = self._findings.line(REQUESTS.name)
        answered = np.isin(requests[:, 1], answers[:, 1])
        refused = np.isin(requests[:, 0], self._refused(partition))
        due = requests[:, 0] < self._committed.get(partition, 0)
        fine = answered | refused
        line.expected += int((due | fine).sum())
        line.found += int(fine.sum())
        for offset, request_id, *_ in requests[due & ~fine].tolist():
            self._add(REQUESTS, Kind.MISSING, partition, offset, f"request {request_id} was never answered")
        waiting = int((~due & ~fine).sum())
        if waiting:
            self._add(REQUESTS, Kind.OPEN, partition, 0, "not answered yet", count=waiting)

    def _check_answers(self, partition: int, requests: Longs, answers: Longs) -> None:
        line = self._findings.line(RECOMMENDATIONS.name)
        line.expected += len(np.unique(requests[np.isin(requests[:, 1], answers[:, 1]), 1]))
        line.found += len(np.unique(answers[:, 1]))
        user_of = dict(zip(requests[:, 1].tolist(), requests[:, 2].tolist(), strict=True))
        seen: dict[int, int] = {}
        for offset, request_id, user_id, _ in answers.tolist():
            if request_id not in user_of:
                self._add(RECOMMENDATIONS, Kind.EXTRA, partition, offset, f"there is no request {request_id}")
            elif user_of[request_id] != user_id:
                detail = f"request {request_id} is of user {user_of[request_id]}, the answer of {user_id}"
                self._add(RECOMMENDATIONS, Kind.WRONG, partition, offset, detail)
            elif request_id in seen:
                detail = f"request {request_id} was answered at offset {seen[request_id]}"
                self._add(RECOMMENDATIONS, Kind.REPEATED, partition, offset, detail)
            seen.setdefault(request_id, offset)

    def _check_pairs(self, partition: int, requests: Longs, pairs: Longs) -> None:
        line = self._findings.line(PREFERENCES.name)
        valid = pairs[pairs[:, 3] >= 0]
        line.expected += len(np.unique(valid[:, 1]))
        line.found += len(np.unique(valid[:, 3]))
        known = set(requests[:, 1].tolist())
        seen: dict[int, int] = {}
        for offset, request_id, _, pair_id in valid.tolist():
            if request_id not in known:
                self._add(PREFERENCES, Kind.EXTRA, partition, offset, f"there is no request {request_id}")
            elif pair_id != _pair_id(request_id):
                detail = f"pair {pair_id} of request {request_id} must have id {_pair_id(request_id)}"
                self._add(PREFERENCES, Kind.WRONG, partition, offset, detail)
            elif pair_id in seen:
                self._add(
                    PREFERENCES, Kind.REPEATED, partition, offset, f"pair {pair_id} was at offset {seen[pair_id]}"
                )
            seen.setdefault(pair_id, offset)

    def _refused(self, partition: int) -> Longs:
        return self._refusals.offsets(WORKER, REQUESTS.name, partition)

    def _add(self, topic: Topic, kind: Kind, partition: int, offset: int, detail: str, *, count: int = 1) -> None:
        self._findings.add(topic.name, kind, (topic.name, partition, offset), detail, count=count)


def _pair_id(request_id: int) -> int:
    """63 bits of a hash of the request: the same request gives the same pair id."""
    data = request_id.to_bytes(8, "little", signed=True)
    return int.from_bytes(blake2b(data, digest_size=8, person=b"onerec-pair").digest(), "little") >> 1
