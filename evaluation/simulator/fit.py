"""Fit the simulator on one half of the users; the other half is left for the check.

Item rates and embeddings come of the fitted half's histories from before the log, the heads of its exposures in
the log: a rate never holds the answer that it helps to predict. Heads are logistic regressions (torch's L-BFGS).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.simulator.model import (
    DURATION_EDGES_MS,
    FEATURES,
    HEADS,
    Floats,
    ItemRates,
    Simulator,
    duration_bucket,
    features,
    threshold_ms,
)
from evaluation.simulator.state import SESSION_GAP_MS, ShownItem, UserState
from evaluation.table1.world import EVERYTHING, Keep, KuaiRandOf, of_users, with_long_views
from schemas.labels import Label
from stream.replay.kuairand import KuaiRand
from stream.replay.log import Exposures, Histories, Items, Log

QUANTILES = 65
SHRINK = 20.0  # as many events of the item's tags as its own
PENALTY = 1.0
ANSWERS = {"long_view": Label.LONG_VIEW, "like": Label.LIKE, "follow": Label.FOLLOW}
Longs = NDArray[np.int64]
Flags = NDArray[np.bool_]


def is_fitted(user_ids: Longs) -> Flags:
    """Which users the fit may read: half of them, by number."""
    mixed = user_ids.astype(np.uint64) * np.uint64(0xD6E8FEB86659FD93)
    chosen: Flags = (mixed >> np.uint64(40)) % np.uint64(2) == 0
    return chosen


def is_held_out(user_ids: Longs) -> Flags:
    """The other half."""
    return ~is_fitted(user_ids)


@dataclass(frozen=True, slots=True)
class Half:
    """What one half of the users did, in time order."""

    histories: Histories
    exposures: Exposures


@dataclass(frozen=True, slots=True)
class Walked:
    """Exposures with the state's features before each: rows [E, F], answers bool [E, 4] in the order of HEADS."""

    rows: Floats
    answers: Flags
    stay_known: Flags  # the log ends too soon to tell of the others
    gaps_ms: Longs  # to the user's next exposure; -1 where there is none
    exposures: Exposures


def half_of(log: Log, keep: Keep, users: int | None = None) -> Half:
    """The half of a log whose users `keep` chooses; of these the first `users` by number."""
    histories = of_users(log.histories(EVERYTHING), keep)
    if users is not None:
        histories = of_users(histories, lambda ids: np.isin(ids, np.sort(histories.user_ids)[:users]))
    exposures = log.exposures()
    kept = keep(exposures.user_ids)
    if users is not None:
        kept &= np.isin(exposures.user_ids, histories.user_ids)
    return Half(histories, exposures.rows(np.flatnonzero(kept)))


def shown_items(items: Items) -> dict[int, ShownItem]:
    """The catalogue by id; embeddings are brought to length 1."""
    lengths = np.linalg.norm(items.embeddings, axis=1, keepdims=True)
    units = items.embeddings.astype(np.float64) / np.where(lengths > 0, lengths, 1)
    columns = zip(
        items.item_ids.tolist(), units, items.durations_ms.tolist(), items.author_ids.tolist(), items.tags, strict=True
    )
    return {item[0]: ShownItem(*item) for item in columns}


def rates_of(histories: Histories, items: dict[int, ShownItem]) -> ItemRates:
    """Long views and likes per exposure, an item's shrunk towards its tags', a tag's towards the overall rate."""
    flags = np.stack([histories.labels & int(label) > 0 for label in (Label.LONG_VIEW, Label.LIKE)], 1)
    overall: Floats = flags.mean(0)
    ids, places = np.unique(histories.items, return_inverse=True)
    counts = np.bincount(places)
    sums = np.stack([np.bincount(places, flags[:, column]) for column in range(2)], 1)
    tags: dict[str, list[Floats]] = {}
    own = dict(zip(ids.tolist(), zip(counts.tolist(), sums, strict=True), strict=True))
    for item_id, (count, total) in own.items():
        for tag in items[item_id].tags if item_id in items else ():
            tags.setdefault(tag, []).append(np.append(total, count))
    totals = {tag: np.sum(found, axis=0) for tag, found in tags.items()}
    by_tag = {tag: (found[:2] + SHRINK * overall) / (found[2] + SHRINK) for tag, found in totals.items()}
    rates = ItemRates({}, by_tag, overall)
    for item_id, (count, total) in own.items():
        prior = rates.by_tags(items[item_id].tags) if item_id in items else overall
        rates.items[item_id] = (total + SHRINK * prior) / (count + SHRINK)
    return rates


def new_user(user_id: int, rates: ItemRates, dimensions: int) -> UserState:
    """A user of whom nothing is known."""
    return UserState(user_id, np.zeros(dimensions), float(rates.overall[0]), float(rates.overall[1]))


def states_of(histories: Histories, items: dict[int, ShownItem], rates: ItemRates) -> dict[int, UserState]:
    """The users' states after their histories."""
    dimensions = len(next(iter(items.values())).embedding)
    states = {}
    for row, user_id in enumerate(histories.user_ids.tolist()):
        state = states[user_id] = new_user(user_id, rates, dimensions)
        at = slice(histories.starts[row], histories.starts[row + 1])
        for item_id, label in zip(histories.items[at].tolist(), histories.labels[at].tolist(), strict=True):
            if item_id in items:
                long_view, like = bool(label & Label.LONG_VIEW), bool(label & Label.LIKE)
                state.update(items[item_id], None, long_view=long_view, like=like)
    return states


def walk(half: Half, items: dict[int, ShownItem], rates: ItemRates) -> Walked:
    """Every exposure of known items with the features from before it; a user's states see that user alone."""
    shown = half.exposures.rows(np.flatnonzero(np.isin(half.exposures.item_ids, list(items))))
    states = states_of(half.histories, items, rates)
    dimensions = len(next(iter(items.values())).embedding)
    labels = with_long_views(shown)
    rows = np.empty((len(shown), len(FEATURES)))
    columns = zip(
        shown.user_ids.tolist(), shown.item_ids.tolist(), shown.times_ms.tolist(), labels.tolist(), strict=True
    )
    for row, (user_id, item_id, time_ms, label) in enumerate(columns):
        state = states.setdefault(user_id, new_user(user_id, rates, dimensions))
        item = items[item_id]
        rows[row] = features(rates, state, item, time_ms)
        done = {name: bool(label & bit) for name, bit in ANSWERS.items()}
        state.update(item, time_ms, **done)
    gaps_ms = gaps_of(shown)
    known = (gaps_ms >= 0) | (shown.times_ms < shown.times_ms.max(initial=0) - SESSION_GAP_MS)
    stays = (gaps_ms >= 0) & (gaps_ms <= SESSION_GAP_MS)
    flags = [labels & int(label) > 0 for label in ANSWERS.values()]
    return Walked(rows, np.stack([*flags, stays], 1), known, gaps_ms, shown)


def gaps_of(exposures: Exposures) -> Longs:
    """From each exposure to the same user's next, ms; -1 where the log has none."""
    order = np.argsort(exposures.user_ids, kind="stable")
    users, times = exposures.user_ids[order], exposures.times_ms[order]
    gaps = np.full(len(order), -1, np.int64)
    same = np.flatnonzero(users[1:] == users[:-1])
    gaps[order[same]] = times[same + 1] - times[same]
    return gaps


def fit(walked: Walked, rates: ItemRates) -> Simulator:
    """The heads, watch times and returns of what was walked."""
    weights = np.zeros((len(HEADS), len(FEATURES) + 1))
    with_view = np.column_stack([walked.rows, walked.answers[:, 0]])
    weights[0, :-1] = _logistic(walked.rows, walked.answers[:, 0])
    for head in (1, 2):
        weights[head] = _logistic(with_view, walked.answers[:, head])
    known = walked.stay_known
    weights[3] = _logistic(with_view[known], walked.answers[known, 3])
    away = walked.gaps_ms[walked.gaps_ms > SESSION_GAP_MS]
    returns = _quantiles(away if len(away) else np.array([SESSION_GAP_MS + 1]))
    return Simulator(rates, weights, _watch_quantiles(walked), returns)


def _logistic(rows: Floats, answers: Flags) -> Floats:
    """Coefficients [F] of a logistic regression with a small ridge on all but the constant (column 0)."""
    inputs, targets = torch.from_numpy(rows), torch.from_numpy(answers.astype(np.float64))
    found = torch.zeros(rows.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([found], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        errors = torch.nn.functional.binary_cross_entropy_with_logits(inputs @ found, targets)
        value = errors + PENALTY / len(rows) * found[1:].square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    result: Floats = found.detach().numpy()
    return result


def _watch_quantiles(walked: Walked) -> Floats:
    """[duration buckets, 2, Q]: watch time over the threshold, of short and of long views."""
    durations = walked.exposures.durations_ms.tolist()
    ratio = walked.exposures.watch_ms / np.array([max(threshold_ms(one), 1) for one in durations])
    buckets = np.array([duration_bucket(one) for one in durations])
    found = np.empty((len(DURATION_EDGES_MS) + 1, 2, QUANTILES))
    for long_view in (0, 1):
        own = walked.answers[:, 0] == bool(long_view)
        whole = ratio[own] if own.any() else np.array([float(long_view)])
        for bucket in range(len(found)):
            part = ratio[own & (buckets == bucket)]
            found[bucket, long_view] = _quantiles(part if len(part) >= QUANTILES else whole)
    return found


def _quantiles(values: NDArray[np.float64] | Longs) -> Floats:
    found: Floats = np.quantile(values.astype(np.float64), np.linspace(0, 1, QUANTILES))
    return found


def fit_on_kuairand(
    users: int | None, open_log: Callable[[Keep], Log] = KuaiRandOf
) -> tuple[Simulator, Walked, dict[int, ShownItem]]:
    """The simulator, what it was fitted on, and the catalogue as the fitted half alone knows it."""
    half = half_of(KuaiRand(), is_fitted, users)
    items = shown_items(open_log(is_fitted).items())
    rates = rates_of(half.histories, items)
    walked = walk(half, items, rates)
    return fit(walked, rates), walked, items
