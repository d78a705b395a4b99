"""How good the judge is: its predictions against what its users really did from 1 May on.

Neither the judge nor a row was trained with these sessions. A judge at chance (AUC and ordering 0.5, rank correlation
0) would order the rows of the table by chance as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.table1.bound import item_values, long_view_rate
from evaluation.table1.judge import device_of, sent
from evaluation.table1.world import World
from onerec.catalogue import CatalogueSnapshot
from onerec.features import HistoryArrays
from onerec.model.presets import ModelConfig
from onerec.model.reward import OBJECTIVES, RewardModel, Rewards, duration_feature
from onerec.settings import TrainOn
from schemas.labels import Label
from trainer.batches import SessionRow, session_batch
from trainer.objectives import reward_targets

MOST = 20_000
"""Sessions, drawn by a fixed seed where there are more."""
SEED = 20220502
CHUNK = 256

Values = NDArray[np.float64]


def quality(judge: RewardModel, world: World, config: ModelConfig, most: int = MOST) -> dict[str, Any]:
    """By objective, on sessions of the judge's users from the split on; None where one kind is missing.

    Rank correlation (Spearman) of watch time and of the share of long views; AUC of any follow and any like of a
    session; for single exposures, scored as sessions of one item, AUC of a long view, and the share of pairs of one
    session, one viewed long and one not, that are ordered rightly (mean over sessions). The same share is given for
    the item's share of long views alone and for the logistic model of `bound`, which know the items and no user.
    """
    order = np.random.default_rng(SEED).permutation(len(world.judge_later))[:most]
    sessions = [world.judge_later[row] for row in order.tolist()]
    if not sessions:
        return {"sessions": 0}
    own = world.judge.catalogue
    said, was = _predicted(judge, sessions, own, config)
    found: dict[str, Any] = {"sessions": len(sessions)}
    for name in ("swt", "vtr"):
        found[name] = {"spearman": spearman(said[name], was[name])}
    for name in ("wtr", "ltr"):
        found[name] = {"auc": auc(said[name], was[name] > 0), "positives": int((was[name] > 0).sum())}
    singles = [_single(session, place) for session in sessions for place in range(len(session.leaves))]
    long = np.array([bool(single.labels[0] & int(Label.LONG_VIEW)) for single in singles])
    value = _predicted(judge, singles, own, config)[0]["vtr"]
    of_session = np.repeat(np.arange(len(sessions)), [len(session.leaves) for session in sessions])
    found["vtr"] |= {"auc": auc(value, long), "positives": int(long.sum())}
    past, leaves = world.judge.past, np.concatenate([session.leaves for session in sessions])
    rate, _ = long_view_rate(past, np.ones(len(past.items), bool), len(own.codes))
    found["within_session"] = {
        "sessions": len(_ordered(value, long, of_session)),
        "ordered": _mean(_ordered(value, long, of_session)),
        "by_long_view_rate": _mean(_ordered(rate[leaves], long, of_session)),
        "by_logistic_model": _mean(_ordered(item_values(world.judge)[leaves], long, of_session)),
    }
    return found


def _ordered(value: Values, long: NDArray[np.bool_], of_session: NDArray[np.int64]) -> list[float]:
    """Of every session that has both kinds the share of pairs ordered rightly; the sessions lie in a row."""
    begins = np.flatnonzero(np.diff(of_session, prepend=-1))
    parts = zip(np.split(value, begins[1:]), np.split(long, begins[1:]), strict=True)
    return [one for one in (auc(*part) for part in parts) if one is not None]


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


@torch.inference_mode()
def _predicted(
    judge: RewardModel, sessions: list[SessionRow], catalogue: CatalogueSnapshot, config: ModelConfig
) -> tuple[dict[str, Values], dict[str, Values]]:
    """By objective what the judge says and what was, [S]."""
    said, was = [], []
    for first in range(0, len(sessions), CHUNK):
        batch = sent(session_batch(sessions[first : first + CHUNK], catalogue, config, TrainOn.ALL), device_of(judge))
        logits: Rewards = judge(batch.history, batch.codes, duration_feature(batch.durations_ms), batch.mask)
        said.append(torch.stack(logits).cpu())
        was.append(torch.stack(reward_targets(batch)).cpu())
    columns = (torch.cat(parts, dim=1).double().numpy() for parts in (said, was))
    said_by, was_by = (dict(zip(OBJECTIVES, each, strict=True)) for each in columns)
    return said_by, was_by


def _single(session: SessionRow, place: int) -> SessionRow:
    """One exposure of a session, with the history before the session."""
    at = slice(place, place + 1)
    history: HistoryArrays = session.history
    return SessionRow(history, session.leaves[at], session.labels[at], session.watch_ms, session.high_quality)


def spearman(said: Values, was: Values) -> float | None:
    """Correlation of the ranks, ties at their mean rank; None where one of the two does not vary."""
    ranks = _ranks(said), _ranks(was)
    return None if min(each.std() for each in ranks) == 0 else float(np.corrcoef(*ranks)[0, 1])


def auc(said: Values, was: NDArray[np.bool_]) -> float | None:
    """Share of the pairs of one that was and one that was not in which the former has the higher value, ties half."""
    yes = int(was.sum())
    no = len(was) - yes
    return float((_ranks(said)[was].sum() - yes * (yes + 1) / 2) / (yes * no)) if yes and no else None


def _ranks(values: Values) -> Values:
    """From 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    found: Values = (counts.cumsum() - (counts - 1) / 2)[inverse]
    return found
