"""The log, split as the protocol says: what may be trained on by whom, and the cases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from evaluation.baselines.sequences import Longs, Sequences
from evaluation.table1.protocol import HISTORY_ITEMS, MIN_HISTORY, SESSION_ITEMS, SPLIT_MS, Form, of_rows
from evaluation.table1.visits import VisitCases, visit_cases
from onerec.catalogue import Catalogue, CatalogueSnapshot
from onerec.features import HistoryArrays
from onerec.model.presets import ModelConfig
from onerec.settings import LabelSettings
from schemas.labels import Label
from schemas.records import ItemTokens
from stream.replay.kuairand import DEFAULT_FOLDER, KuaiRand
from stream.replay.log import Exposures, Histories, Items, Log
from stream.tokenizer.fit import FitSettings, fit
from trainer.batches import SessionRow, positive

CASES_SEED = 20220501
EVERYTHING = 1_000_000


class Keep(Protocol):
    """Chooses users."""

    def __call__(self, user_ids: Longs) -> NDArray[np.bool_]:
        """Bool [U] for int64 [U]."""
        ...


class KuaiRandOf(KuaiRand):
    """KuaiRand with the histories of some users; its embeddings are made of these alone."""

    def __init__(self, keep: Keep, folder: Path = DEFAULT_FOLDER) -> None:
        super().__init__(folder)
        self._keep = keep

    def histories(self, last: int) -> Histories:
        """As KuaiRand's, of the users kept."""
        return of_users(super().histories(last), self._keep)


def of_users(histories: Histories, keep: Keep) -> Histories:
    """The histories of the users kept."""
    kept = keep(histories.user_ids)
    sizes = np.diff(histories.starts)
    events = np.repeat(kept, sizes)
    return Histories(
        user_ids=histories.user_ids[kept],
        starts=np.concatenate([[0], np.cumsum(sizes[kept])]),
        items=histories.items[events],
        times_ms=histories.times_ms[events],
        labels=histories.labels[events],
        updated_ms=histories.updated_ms[kept],
    )


@dataclass(frozen=True, slots=True)
class Side:
    """One side of the split by users: its catalogue, and its users' exposures before the split."""

    items: Items
    catalogue: CatalogueSnapshot  # leaf i is row i of `items`
    user_ids: Longs  # [U]
    past: Sequences

    def history(self, row: int) -> HistoryArrays:
        """A user's exposures before the split, as OneRec reads them."""
        at = self.past.user(row)
        ids = self.items.item_ids[self.past.items[at]]
        return HistoryArrays(ids, np.zeros(len(ids), np.int64), self.past.labels[at])

    def sessions(self, after: Side | None = None) -> list[SessionRow]:
        """Every m consecutive exposures with known watch time, with the history before; what is left over is not used.

        `after` leaves out the exposures that it has of each user.
        """
        known: dict[int, int] = {}
        if after is not None:
            known = dict(zip(after.user_ids.tolist(), np.diff(after.past.starts).tolist(), strict=True))
        found = []
        for row in range(len(self.past)):
            at = self.past.user(row)
            history, leaves = self.history(row), self.past.items[at]
            watch_ms = self.past.watch_ms[at]
            timed = int((watch_ms < 0).sum())  # histories come first and have none
            first = max(timed, known.get(int(self.user_ids[row]), 0))
            for begin in range(first, len(leaves) - SESSION_ITEMS + 1, SESSION_ITEMS):
                end = begin + SESSION_ITEMS
                before = _newest(history, begin)
                found.append(
                    SessionRow(
                        before, leaves[begin:end], history.labels[begin:end], int(watch_ms[begin:end].sum()), False
                    )
                )
        return found


def _newest(history: HistoryArrays, end: int) -> HistoryArrays:
    """The exposures before `end` that fit into a history."""
    at = slice(max(0, end - HISTORY_ITEMS), end)
    return HistoryArrays(history.items[at], history.times_ms[at], history.labels[at])


@dataclass(frozen=True, slots=True)
class Cases:
    """Users to recommend for: rows of the rows' side, and the items (leaves) that they then took to."""

    users: Longs  # [C] rows of `Side.past`
    truth: list[set[int]]

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True, slots=True)
class World:
    """All that Table 1 is made of."""

    rows: Side
    judge: Side
    cases: Cases
    judge_later: list[SessionRow]  # of the judge's users from the split on, which nothing is trained with
    visits: VisitCases  # of the cases' users from the split on

    def at_visits(self) -> World:
        """The same with a case for each visit, whose user is known as far as the visit. Nothing trains on it."""
        past, truth = self.visits.past, self.visits.truth
        rows = replace(self.rows, user_ids=self.visits.user_ids, past=past)
        return replace(self, rows=rows, cases=Cases(np.arange(len(truth)), truth))


def load(
    form: Form, config: ModelConfig, open_log: Callable[[Keep], Log] = KuaiRandOf, split_ms: int = SPLIT_MS
) -> World:
    """Split the log. `open_log` gives it with the histories of the users that a side keeps."""
    sides = []
    for chosen in (of_rows, _not_of_rows):
        keep = _first_of(chosen, open_log(chosen), form.users)
        log = open_log(keep)
        items, histories, exposures = log.items(), log.histories(EVERYTHING), _kept(log.exposures(), keep)
        before = exposures.rows(np.flatnonzero(exposures.times_ms < split_ms))
        side = _side(items, catalogue_of(items, config), histories, before)
        sides.append((side, histories, exposures))
    (rows, rows_histories, of_rows_users), (judge, histories, of_judge) = sides
    later = _side(judge.items, judge.catalogue, histories, of_judge).sessions(after=judge)
    cases = _cases(rows, of_rows_users, form.cases, split_ms)
    return World(rows, judge, cases, later, _visits(rows, rows_histories, of_rows_users, cases, split_ms))


def _visits(side: Side, histories: Histories, exposures: Exposures, cases: Cases, split_ms: int) -> VisitCases:
    """Of the cases' users, of exposures that the catalogue has."""
    user_ids = side.user_ids[cases.users]
    leaves = side.catalogue.leaves(exposures.item_ids)
    own = np.flatnonzero(np.isin(exposures.user_ids, user_ids) & (leaves >= 0))
    log = replace(exposures.rows(own), labels=with_long_views(exposures.rows(own)))
    whole = _side(side.items, side.catalogue, of_users(histories, lambda ids: np.isin(ids, user_ids)), log)
    return visit_cases(whole.user_ids, whole.past, log, leaves[own], split_ms)


def _not_of_rows(user_ids: Longs) -> NDArray[np.bool_]:
    return ~of_rows(user_ids)


def _first_of(chosen: Keep, log: Log, users: int | None) -> Keep:
    """Of the chosen users all, or the first `users` that have a history: by number, not by what they did."""
    if users is None:
        return chosen
    ids = np.sort(log.histories(EVERYTHING).user_ids)[:users]
    return lambda user_ids: np.isin(user_ids, ids)


def _kept(exposures: Exposures, keep: Keep) -> Exposures:
    return exposures.rows(np.flatnonzero(keep(exposures.user_ids)))


def _side(items: Items, catalogue: CatalogueSnapshot, histories: Histories, before: Exposures) -> Side:
    user_ids = np.union1d(histories.user_ids, before.user_ids)
    user = np.concatenate([np.repeat(histories.user_ids, np.diff(histories.starts)), before.user_ids])
    order = np.argsort(user, kind="stable")  # histories first, then the log in time order
    leaves = catalogue.leaves(np.concatenate([histories.items, before.item_ids]))[order]
    labels = np.concatenate([histories.labels, with_long_views(before)])[order]
    watch_ms = np.concatenate([np.full(len(histories.items), -1), before.watch_ms])[order]
    known = leaves >= 0
    starts = np.searchsorted(user[order][known], np.append(user_ids, np.iinfo(np.int64).max))
    past = Sequences(starts, leaves[known], labels[known], watch_ms[known])
    return Side(items, catalogue, user_ids, past)


def with_long_views(exposures: Exposures) -> NDArray[np.uint8]:
    """The labels with the joiner's long views."""
    rule = LabelSettings()
    pairs = zip(exposures.watch_ms.tolist(), exposures.durations_ms.tolist(), strict=True)
    long = np.fromiter((rule.is_long_view(*pair) for pair in pairs), bool, len(exposures))
    return exposures.labels | np.where(long, np.uint8(Label.LONG_VIEW), np.uint8(0))


def catalogue_of(items: Items, config: ModelConfig) -> CatalogueSnapshot:
    """With semantic ids fitted on the items' embeddings; leaf i is row i of the items."""
    codes = fit(items.embeddings, FitSettings(levels=config.levels, codes=config.codes)).codes
    catalogue = Catalogue(config.levels, config.codes)
    columns = zip(items.item_ids.tolist(), codes.tolist(), items.durations_ms.tolist(), items.tags, strict=True)
    for offset, (item_id, own, duration_ms, tags) in enumerate(columns):
        tokens = ItemTokens(
            item_id=item_id, codes=tuple(own), codebook_version=1, duration_ms=duration_ms, tags=tags, created_ms=0
        )
        refusal = catalogue.apply(tokens, offset + 1)
        assert refusal is None, refusal
    return catalogue.snapshot()


def _cases(side: Side, exposures: Exposures, count: int, split_ms: int) -> Cases:
    """Users with enough before the split and something after; the positives of their next m exposures."""
    after = exposures.rows(np.flatnonzero(exposures.times_ms >= split_ms))
    order = np.argsort(after.user_ids, kind="stable")
    users, begins = np.unique(after.user_ids[order], return_index=True)
    ends = np.append(begins[1:], len(order))
    labels, leaves = with_long_views(after)[order], side.catalogue.leaves(after.item_ids)[order]
    lengths = dict(zip(side.user_ids.tolist(), np.diff(side.past.starts).tolist(), strict=True))
    usable = np.flatnonzero([lengths.get(user, 0) >= MIN_HISTORY for user in users.tolist()])
    chosen = np.sort(np.random.default_rng(CASES_SEED).permutation(usable)[:count])
    rows = np.searchsorted(side.user_ids, users[chosen])
    truth = []
    for row, begin, end in zip(rows.tolist(), begins[chosen].tolist(), ends[chosen].tolist(), strict=True):
        next_ones = slice(begin, min(end, begin + SESSION_ITEMS))
        liked = leaves[next_ones][positive(labels[next_ones])]
        truth.append(set(liked[liked >= 0].tolist()) - set(side.past.items[side.past.user(row)].tolist()))
    return Cases(rows, truth)
