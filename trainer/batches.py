"""From records to the tensors of one step: what is new, what is known, what is refused.

Letters: B sessions, P pairs, m items of a session, n items of a history, L levels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onerec.catalogue import CatalogueSnapshot
from onerec.features import HistoryArrays, history_batch
from onerec.kafka.reader import Received
from onerec.model.batches import HistoryBatch
from onerec.model.presets import ModelConfig
from onerec.settings import TrainOn
from schemas.labels import POSITIVE, Label
from schemas.reasons import Reason
from schemas.records import OffsetRange, PreferencePair, Session
from trainer.state import Partition, TrainState

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class StepInput:
    """All that a step depends on beside the state: the same input on the same state gives the same bits."""

    ranges: tuple[OffsetRange, ...]
    sessions: tuple[Received, ...]
    pairs: tuple[Received, ...]
    catalogue: CatalogueSnapshot


@dataclass(frozen=True, slots=True)
class Refusal:
    """A record, or one exposure of it, that the step could not use."""

    received: Received
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class SessionRow:
    """At most m consecutive exposures of known items."""

    history: HistoryArrays
    leaves: Array  # int64 [<= m]
    labels: Array  # uint8 [<= m]
    watch_ms: int
    high_quality: bool
    frequency_weight: Array | None = None  # float32 [<= m]; None for 1


@dataclass(slots=True)
class Admitted:
    """What of a StepInput the step will learn from."""

    rows: list[SessionRow] = field(default_factory=list)
    pairs: list[PreferencePair] = field(default_factory=list)
    produced_ms: list[int] = field(default_factory=list)
    """For each exposure to be learned, produced_ms of its last action."""
    sessions: int = 0
    duplicates: int = 0
    refusals: list[Refusal] = field(default_factory=list)
    applied: Counter[Partition] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class SessionBatch:
    """Sessions as tensors. A leaf of -1 is an empty slot."""

    history: HistoryBatch
    leaves: Tensor  # int64 [B, m]
    codes: Tensor  # int64 [B, m, L]
    labels: Tensor  # int64 [B, m]
    weight: Tensor  # float32 [B, m]: above 0 where the next-token loss covers the exposure, 1 as a rule
    durations_ms: Tensor  # int64 [B, m]
    watch_ms: Tensor  # int64 [B]

    @property
    def mask(self) -> Tensor:
        """Bool [B, m]: where there is an item."""
        return self.leaves >= 0


@dataclass(frozen=True, slots=True)
class PairBatch:
    """Preference pairs as tensors, with the log-probabilities of the version that made them as the reference."""

    history: HistoryBatch
    chosen: Tensor  # int64 [P, m] leaves
    rejected: Tensor  # int64 [P, m] leaves
    ref_chosen: Tensor  # float32 [P]
    ref_rejected: Tensor  # float32 [P]


def admit(state: TrainState, step_input: StepInput) -> Admitted:
    """Drop what has been applied and what names unknown items; `state` remembers ids and items of what is left.

    An unknown item costs a session that exposure and a pair all of it: a session without one of its items is
    still a true session, a preference between other sessions is not.
    """
    admitted = Admitted()
    for received in step_input.sessions:
        _admit_session(state, step_input.catalogue, received, admitted)
    _weigh(state, step_input.catalogue, admitted)
    for received in step_input.pairs if state.settings.preference_loss != "none" else ():
        _admit_pair(state, step_input.catalogue, received, admitted)
    return admitted


def _admit_session(state: TrainState, catalogue: CatalogueSnapshot, received: Received, admitted: Admitted) -> None:
    session: Session = received.record
    items = np.fromiter((item.item_id for item in session.items), dtype=np.int64, count=len(session.items))
    leaves = catalogue.leaves(items)
    unknown = items[leaves < 0]
    if len(unknown):
        detail = f"session {session.session_id}: items {unknown.tolist()} are not on topic item-tokens"
        admitted.refusals.append(Refusal(received, Reason.UNKNOWN_ITEM, detail))
    known = np.flatnonzero(leaves >= 0)
    if not len(known):
        return
    if not state.seen_sessions.add(session.session_id):
        admitted.duplicates += 1
        return
    admitted.sessions += 1
    admitted.applied[received.topic.name, received.partition] += 1
    admitted.produced_ms.extend(session.items[place].produced_ms for place in known)
    admitted.rows.extend(_rows(session, known, leaves, state.config.session_items))


def _rows(session: Session, known: Array, leaves: Array, m: int) -> Iterator[SessionRow]:
    """Cut a session into rows of at most m items; a later row has the earlier items in its history."""
    history = HistoryArrays.of(session)
    for first in range(0, len(known), m):
        places = known[first : first + m]
        items = [session.items[place] for place in places]
        labels = np.array([item.labels for item in items], dtype=np.uint8)
        watch_ms = sum(item.watch_ms for item in items)
        yield SessionRow(history, leaves[places], labels, watch_ms, session.high_quality)
        history = HistoryArrays(
            np.append(history.items, [item.item_id for item in items]),
            np.append(history.times_ms, [item.time_ms for item in items]),
            np.append(history.labels, labels),
        )


def _weigh(state: TrainState, catalogue: CatalogueSnapshot, admitted: Admitted) -> None:
    """Count what was shown, and give the rows the weights that follow from it, where the settings ask for that."""
    if state.frequency is None or not admitted.rows:
        return
    items = catalogue.item_ids[np.concatenate([row.leaves for row in admitted.rows])]
    state.frequency.add(items)
    weights = state.frequency.weights(items, state.settings.frequency_power)
    ends = np.cumsum([len(row.leaves) for row in admitted.rows])
    rows = zip(admitted.rows, np.split(weights, ends[:-1]), strict=True)
    admitted.rows = [replace(row, frequency_weight=own) for row, own in rows]


def _admit_pair(state: TrainState, catalogue: CatalogueSnapshot, received: Received, admitted: Admitted) -> None:
    pair: PreferencePair = received.record
    items = np.array(pair.chosen + pair.rejected, dtype=np.int64)
    unknown = items[catalogue.leaves(items) < 0]
    if len(unknown):
        detail = f"pair {pair.pair_id}: items {unknown.tolist()} are not on topic item-tokens"
        admitted.refusals.append(Refusal(received, Reason.UNKNOWN_ITEM, detail))
        return
    m = state.config.session_items
    if not len(pair.chosen) == len(pair.rejected) == m:
        detail = f"pair {pair.pair_id}: {len(pair.chosen)} and {len(pair.rejected)} items instead of {m}"
        admitted.refusals.append(Refusal(received, Reason.OUT_OF_BOUNDS, detail))
        return
    if not state.seen_pairs.add(pair.pair_id):
        admitted.duplicates += 1
        return
    admitted.applied[received.topic.name, received.partition] += 1
    admitted.pairs.append(pair)


def unknown_items(step_input: StepInput) -> bool:
    """Whether a record names an item that the snapshot lacks: then the catalogue is worth another look."""
    catalogue = step_input.catalogue
    sessions = (item.item_id for received in step_input.sessions for item in received.record.items)
    pairs = (item for received in step_input.pairs for item in received.record.chosen + received.record.rejected)
    items = np.fromiter((*sessions, *pairs), dtype=np.int64)
    return bool((catalogue.leaves(items) < 0).any())


def session_batch(
    rows: Sequence[SessionRow], catalogue: CatalogueSnapshot, config: ModelConfig, train_on: TrainOn
) -> SessionBatch:
    """Rows as tensors, padded to the longest session in the batch."""
    leaves = _padded([row.leaves for row in rows], -1)
    labels = _padded([row.labels for row in rows], 0)
    quality = np.array([row.high_quality for row in rows])
    weight = target_weight(labels, leaves >= 0, quality, train_on)
    for own, row in zip(weight, rows, strict=True):
        if row.frequency_weight is not None:
            own[: len(row.leaves)] *= row.frequency_weight
    return SessionBatch(
        history=history_batch([row.history for row in rows], catalogue, config),
        leaves=torch.from_numpy(leaves),
        codes=torch.from_numpy(catalogue.codes_of(leaves.clip(0))),
        labels=torch.from_numpy(labels),
        weight=torch.from_numpy(weight),
        durations_ms=torch.from_numpy(np.where(leaves >= 0, catalogue.durations_of(leaves.clip(0)), 0)),
        watch_ms=torch.tensor([row.watch_ms for row in rows]),
    )


def pair_batch(pairs: Sequence[PreferencePair], catalogue: CatalogueSnapshot, config: ModelConfig) -> PairBatch:
    """Pairs as tensors."""

    def leaves(sessions: Iterable[tuple[int, ...]]) -> Tensor:
        return torch.from_numpy(np.stack([catalogue.leaves(np.array(items, dtype=np.int64)) for items in sessions]))

    return PairBatch(
        history=history_batch([HistoryArrays.of(pair) for pair in pairs], catalogue, config),
        chosen=leaves(pair.chosen for pair in pairs),
        rejected=leaves(pair.rejected for pair in pairs),
        ref_chosen=torch.tensor([pair.chosen_log_prob for pair in pairs], dtype=torch.float32),
        ref_rejected=torch.tensor([pair.rejected_log_prob for pair in pairs], dtype=torch.float32),
    )


def target_weight(labels: Array, mask: Array, high_quality: Array, train_on: TrainOn) -> Array:
    """Float32 [B, m]: 1 for the exposures that the next-token loss covers."""
    covered: Array = mask
    if train_on is TrainOn.POSITIVES:
        covered = mask & positive(labels)
    elif train_on is TrainOn.HIGH_QUALITY:
        covered = mask & high_quality[:, None]
    return covered.astype(np.float32)


def positive(labels: Array) -> Array:
    """`schemas.labels.is_positive` of arrays."""
    marked: Array = ((labels & int(POSITIVE)) != 0) & ((labels & int(Label.DISLIKE)) == 0)
    return marked


def _padded(rows: Sequence[Array], fill: int) -> Array:
    """Int64 [B, longest row]."""
    padded = np.full((len(rows), max(map(len, rows))), fill, dtype=np.int64)
    for row, values in zip(padded, rows, strict=True):
        row[: len(values)] = values
    return padded
