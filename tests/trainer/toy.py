"""A small world for the trainer's tests: a catalogue of the tiny preset, sessions and pairs in it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from onerec.catalogue import Catalogue, CatalogueSnapshot
from onerec.kafka.reader import Received
from onerec.model.presets import ModelConfig, preset
from onerec.settings import TrainerSettings
from schemas.labels import Label
from schemas.packed import pack_longs
from schemas.records import (
    ClosedBy,
    ItemTokens,
    OffsetRange,
    PreferencePair,
    Rewards,
    Session,
    SessionItem,
)
from schemas.topics import PREFERENCES, SESSIONS
from trainer.admission import StepInput
from trainer.state import TrainState

TINY: ModelConfig = preset("tiny")
ITEMS = 60
UNKNOWN_ITEM = 999_999
REWARDS = Rewards(swt=0.5, vtr=0.5, wtr=0.5, ltr=0.5, scalar=0.0)


def tokens(item: int) -> ItemTokens:
    """Semantic id of one of the ITEMS items."""
    k = TINY.codes
    return ItemTokens(
        item_id=item,
        codes=(item % k, item // k, 5 * item % k),
        codebook_version=1,
        duration_ms=1000 * (item + 1),
        tags=("t",),
        created_ms=0,
    )


def catalogue(items: Iterable[int] = range(ITEMS)) -> CatalogueSnapshot:
    """All items, or some."""
    fed = Catalogue(TINY.levels, TINY.codes)
    for offset, item in enumerate(items):
        assert fed.apply(tokens(item), offset + 1) is None
    return fed.snapshot()


def session(identifier: int, items: Sequence[int], *, history: Sequence[int] = (1, 2, 3), labels: int = 1) -> Session:
    """Exposures of `items`, all with the same labels: watched long by default."""
    rows = tuple(
        SessionItem(
            item_id=item,
            request_id=identifier,
            position=place,
            time_ms=1000 + place,
            watch_ms=20_000 if labels & Label.LONG_VIEW else 500,
            duration_ms=30_000,
            labels=labels,
            produced_ms=5000 + place,
        )
        for place, item in enumerate(items)
    )
    return Session(
        session_id=identifier,
        user_id=7,
        history_items=pack_longs(history),
        history_times_ms=pack_longs([0] * len(history)),
        history_labels=bytes([1] * len(history)),
        items=rows,
        start_ms=1000,
        end_ms=2000,
        total_watch_ms=sum(row.watch_ms for row in rows),
        high_quality=False,
        closed_by=ClosedBy.FULL,
    )


def pair(identifier: int, chosen: Sequence[int], rejected: Sequence[int], log_probs: Sequence[float]) -> PreferencePair:
    """A preference with the reference's log-probabilities (chosen, rejected)."""
    return PreferencePair(
        pair_id=identifier,
        request_id=identifier,
        user_id=7,
        time_ms=1000,
        history_items=pack_longs([1, 2, 3]),
        history_times_ms=pack_longs([0, 0, 0]),
        history_labels=bytes([1, 0, 1]),
        chosen=tuple(chosen),
        rejected=tuple(rejected),
        chosen_log_prob=log_probs[0],
        rejected_log_prob=log_probs[1],
        chosen_rewards=REWARDS,
        rejected_rewards=REWARDS,
        candidates=8,
        model_version=1,
        catalogue_offset=ITEMS,
    )


def step_input(
    sessions: Sequence[Session] = (),
    pairs: Sequence[PreferencePair] = (),
    *,
    first_offset: int = 0,
    known: CatalogueSnapshot | None = None,
) -> StepInput:
    """An input with everything in partition 0."""

    def received(topic: Any, records: Sequence[Any]) -> tuple[Received, ...]:
        counted = zip(itertools.count(first_offset), records, strict=False)
        return tuple(Received(topic, 0, offset, 1000, b"7", record) for offset, record in counted)

    ranges = tuple(
        OffsetRange(
            topic=topic.name,
            partition=0,
            first_offset=first_offset,
            next_offset=first_offset + len(records),
            records=len(records),
            applied=0,
        )
        for topic, records in ((SESSIONS, sessions), (PREFERENCES, pairs))
        if records
    )
    return StepInput(ranges, received(SESSIONS, sessions), received(PREFERENCES, pairs), known or catalogue())


def state(**settings: Any) -> TrainState:
    """A fresh state of the tiny preset."""
    return TrainState.new(TINY, TrainerSettings(**({"warmup_steps": 0} | settings)))
