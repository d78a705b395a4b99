"""The cascade of an A/B run: what it learns from, its three models, and their answers for users' histories."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluation.ab.protocol import Form
from evaluation.baselines.attributes import ItemAttributes
from evaluation.baselines.cascade import Cascade, Sizes, Stages
from evaluation.baselines.multi_objective import ObjectiveModel, PreRanker, Ranker
from evaluation.baselines.sasrec import SASRec
from evaluation.baselines.sequences import Longs, Sequences, sequence_batch
from evaluation.baselines.training import SequenceModel, Training, train
from evaluation.baselines.transformer import TrunkSettings
from evaluation.table1.protocol import HISTORY_ITEMS
from evaluation.table1.world import with_long_views
from stream.replay.log import Exposures, Histories, Items

TRUNK = TrunkSettings(length=HISTORY_ITEMS)


class Known(NamedTuple):
    """What the cascade knows of a user: rows of the catalogue, oldest first, and their labels."""

    rows: Longs
    labels: NDArray[np.uint8]


def past_of(items: Items, histories: Histories, warm: Exposures, users: int | None) -> Sequences:
    """What the cascade learns from: histories of `users` users (all by default), and the warm-up's exposures."""
    kept = np.isin(histories.user_ids, warm.user_ids)
    if users is None:
        kept[:] = True
    else:
        kept[np.flatnonzero(~kept)[: max(0, users - int(kept.sum()))]] = True
    sizes = np.diff(histories.starts)
    events = np.repeat(kept, sizes)
    owner = np.concatenate([np.repeat(histories.user_ids, sizes)[events], warm.user_ids])
    order = np.argsort(owner, kind="stable")  # histories first, then the warm-up in time order
    rows = rows_of(items.item_ids, np.concatenate([histories.items[events], warm.item_ids]))[order]
    labels = np.concatenate([histories.labels[events], with_long_views(warm)])[order]
    watch_ms = np.concatenate([np.full(int(events.sum()), -1), warm.watch_ms])[order]
    met = rows >= 0
    starts = np.searchsorted(owner[order][met], np.append(np.unique(owner), np.iinfo(np.int64).max))
    return Sequences(starts, rows[met], labels[met], watch_ms[met])


def rows_of(known: Longs, item_ids: Longs) -> Longs:
    """The place of each item in `known`, -1 where it is not there."""
    order = np.argsort(known)
    at = np.minimum(np.searchsorted(known[order], item_ids), len(known) - 1)
    found: Longs = np.where(known[order][at] == item_ids, order[at], -1)
    return found


def known_of(item_ids: Longs, items: Longs, labels: NDArray[np.uint8]) -> Known:
    """Of exposures to `items`, those of items that the catalogue `item_ids` has."""
    rows = rows_of(item_ids, items)
    return Known(rows[rows >= 0], labels[rows >= 0])


def trained(items: Items, past: Sequences, form: Form, seed: int) -> Cascade:
    """All three stages."""
    pre_ranker, ranker = rankers(items, past, form.ranking_epochs, seed)
    sizes = Sizes(form.retrieved, form.pre_ranked)
    return Cascade(retrieval(items, past, form.retrieval_epochs, seed), pre_ranker, ranker, sizes)


def retrieval(items: Items, past: Sequences, epochs: int, seed: int) -> SequenceModel:
    """SASRec with softmax over the catalogue."""
    return train(lambda: SASRec(len(items.item_ids), TRUNK, "softmax"), past, Training(epochs=epochs), seed)


def rankers(items: Items, past: Sequences, epochs: int, seed: int) -> tuple[ObjectiveModel, ObjectiveModel]:
    """Pre-ranker and ranker."""
    attributes = ItemAttributes.of(items)

    def stage(make: Callable[[], ObjectiveModel]) -> ObjectiveModel:
        model = train(make, past, Training(epochs=epochs), seed)
        assert isinstance(model, ObjectiveModel)
        return model

    return stage(lambda: PreRanker(attributes, TRUNK)), stage(lambda: Ranker(attributes, TRUNK))


def recommended(cascade: Cascade, users: Sequence[Known], others: Sequence[Longs]) -> Stages:
    """All stages for some users, without what they know and without `others`, rows of the catalogue for each."""
    starts = np.concatenate([[0], np.cumsum([len(user.rows) for user in users])])
    rows, labels = (np.concatenate(column) for column in zip(*users, strict=True))
    known = Sequences(starts, rows, labels, np.full(int(starts[-1]), -1))
    left_out = [np.concatenate([user.rows, extra]) for user, extra in zip(users, others, strict=True)]
    return cascade.recommend(sequence_batch(known, np.arange(len(users)), TRUNK.length), left_out)
