"""From what the engine generated to the records that clients read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inference.engine.generated import Generated
from onerec.catalogue import CatalogueSnapshot
from schemas.records import Recommendation, RecommendedItem, Request, Status


@dataclass(frozen=True, slots=True)
class Source:
    """What an answer was made with."""

    version: int
    snapshot: CatalogueSnapshot | None


def refusal(request: Request, status: Status, reason: str, source: Source, now_ms: int) -> Recommendation:
    """An answer without items that says why."""
    return Recommendation(
        request_id=request.request_id,
        user_id=request.user_id,
        status=status,
        reason=reason,
        session=(),
        session_log_prob=0.0,
        ranked=(),
        model_version=source.version,
        catalogue_offset=0 if source.snapshot is None else source.snapshot.offset,
        history_length=0,
        time_ms=request.time_ms,
        produced_ms=now_ms,
        latency_ms=max(0.0, float(now_ms - request.produced_ms)),
    )


class Answers:
    """The answers of one batch; the engine's tensors are read once."""

    def __init__(self, generated: Generated, snapshot: CatalogueSnapshot, version: int, *, session: bool) -> None:
        self._snapshot, self._version, self._session = snapshot, version, session
        self._sessions = generated.sessions[:, 0].tolist()  # the best of each request
        self._item_log_probs = generated.item_log_probs[:, 0].tolist()
        self._first = generated.first_leaves.tolist()
        self._first_log_probs = generated.first_log_probs.tolist()

    def has_items(self, row: int) -> bool:
        """Whether any item satisfies the constraints of request `row`."""
        return bool(self._first[row][0] >= 0)

    def record(self, row: int, request: Request, history_length: int, now_ms: int) -> Recommendation:
        """The answer to request `row` of the batch."""
        session = self._items(self._sessions[row], self._item_log_probs[row]) if self._session else ()
        ranked = self._items(self._first[row][: request.items], self._first_log_probs[row])
        return Recommendation(
            request_id=request.request_id,
            user_id=request.user_id,
            status=Status.ANSWERED,
            session=session,
            session_log_prob=sum(item.log_prob for item in session),
            ranked=ranked,
            model_version=self._version,
            catalogue_offset=self._snapshot.offset,
            history_length=history_length,
            time_ms=request.time_ms,
            produced_ms=now_ms,
            latency_ms=max(0.0, float(now_ms - request.produced_ms)),
        )

    def _items(self, leaves: list[int], log_probs: list[float]) -> tuple[RecommendedItem, ...]:
        ids = self._snapshot.item_ids
        return tuple(
            RecommendedItem(item_id=int(ids[leaf]), log_prob=log_prob)
            for leaf, log_prob in zip(leaves, log_probs, strict=False)
            if leaf >= 0
        )


def invalid_items(answer: Recommendation, snapshot: CatalogueSnapshot) -> int:
    """How many items of an answer, looked up by id, are not in the catalogue or repeat within their list."""
    session = [item.item_id for item in answer.session]
    ranked = [item.item_id for item in answer.ranked]
    unknown = int((snapshot.leaves(np.array(session + ranked, np.int64)) < 0).sum())
    return unknown + len(session) - len(set(session)) + len(ranked) - len(set(ranked))
