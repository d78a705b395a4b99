"""What of a step's records is learned: what is new and known; the rest is counted or refused with a reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from onerec.catalogue import CatalogueSnapshot
from onerec.features import HistoryArrays
from onerec.kafka.reader import Received
from schemas.reasons import Reason
from schemas.records import OffsetRange, PreferencePair, Session
from trainer.batches import Array, SessionRow
from trainer.state import Partition, TrainState


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
