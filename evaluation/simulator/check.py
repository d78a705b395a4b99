"""How well the simulator foretells the users it was not fitted on, beside simple baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from evaluation.simulator.fit import Walked, fit_on_kuairand, half_of, is_held_out, walk
from evaluation.simulator.model import FEATURES, HEADS, Floats, Simulator, marginal
from evaluation.simulator.state import SESSION_GAP_MS, ShownItem
from evaluation.table1.origin import commit
from onerec.machine import machine
from stream.replay.kuairand import KuaiRand

ROOT = Path(__file__).resolve().parents[2]
SEED = 1
QUICK_USERS = 1500
PLACES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
WEAKNESSES = (
    "The log is a thinned sample: 1.2 exposures a session; staying and returning are the sample's.",
    "Exposures were chosen by the app: answers to items that it would not have shown are extrapolated.",
    "Follows are rare (0.13 %), so their head has few to learn from. Comments, shares and dislikes are not simulated.",
    "Drift and habit rates are set, not fitted; fitted is how strongly they act.",
    "Returns do not depend on the user, and who never comes back is not modelled.",
)


def run(quick: bool) -> dict[str, Any]:
    """Fit on one half, check on the other."""
    users = QUICK_USERS if quick else None
    simulator, fitted, items = fit_on_kuairand(users)
    held_out = walk(half_of(KuaiRand(), is_held_out, users), items, simulator.rates)
    return {
        "form": "quick" if quick else "full",
        "seed": SEED,
        "commit": commit(),
        "machine": machine(),
        "exposures": {"fitted": len(fitted.rows), "held_out": len(held_out.rows)},
        "heads": heads(simulator, fitted, held_out),
        "coefficients": coefficients(simulator),
        **drawn(simulator, held_out, items),
        "weaknesses": list(WEAKNESSES),
    }


def heads(simulator: Simulator, fitted: Walked, held_out: Walked) -> dict[str, Any]:
    """Log loss, AUC and calibration of each head; the baselines are means of the fitted half (user: own past)."""
    found = marginal(simulator.weights, held_out.rows)
    past = _past_means(held_out, fitted.answers.mean(0))
    by_item = _item_means(fitted, held_out)
    result = {}
    for head, name in enumerate(HEADS):
        known = held_out.stay_known if name == "stay" else np.ones(len(held_out.rows), bool)
        truth = held_out.answers[known, head]
        own = fitted.stay_known if name == "stay" else np.ones(len(fitted.rows), bool)
        constant = np.full(len(truth), fitted.answers[own, head].mean())
        chances = {
            "simulator": found[known, head],
            "item_mean": by_item[known, head],
            "user_mean": past[known, head],
            "global_mean": constant,
        }
        result[name] = {
            "rate": float(truth.mean()),
            "log_loss": {which: log_loss(p, truth) for which, p in chances.items()},
            "auc": {which: auc(p, truth) for which, p in chances.items()},
            "deciles": deciles(found[known, head], truth),
        }
    return result


def log_loss(chances: Floats, truth: Any) -> float:
    """Mean, in nats."""
    p = np.clip(chances, 1e-6, 1 - 1e-6)
    return float(-np.where(truth, np.log(p), np.log(1 - p)).mean())


def auc(chances: Floats, truth: Any) -> float:
    """Area under the ROC curve, ties at half; 0.5 where there is only one class."""
    positives, negatives = np.sort(chances[truth]), np.sort(chances[~truth])
    if not len(positives) or not len(negatives):
        return 0.5
    below = np.searchsorted(negatives, positives, "left") + np.searchsorted(negatives, positives, "right")
    return float(below.mean() / 2 / len(negatives))


def deciles(chances: Floats, truth: Any) -> list[list[float]]:
    """Predicted and true mean of each tenth of the exposures, the least likely first."""
    parts = np.array_split(np.argsort(chances, kind="stable"), 10)
    return [[float(chances[part].mean()), float(truth[part].mean())] for part in parts if len(part)]


def coefficients(simulator: Simulator) -> dict[str, dict[str, float]]:
    """Log-odds by head; `affinity` is the drift's effect, repeats, share and position are the fatigue's."""
    names = (*FEATURES, "long_view_now")
    return {
        head: dict(zip(names, row.tolist(), strict=True)) for head, row in zip(HEADS, simulator.weights, strict=True)
    }


def drawn(simulator: Simulator, held_out: Walked, items: dict[int, ShownItem]) -> dict[str, Any]:
    """Watch times and session lengths as drawn, beside the true ones: states are the logged ones (open loop)."""
    shown = held_out.exposures
    rng = np.random.default_rng(SEED)
    long_view = rng.random(len(shown)) < marginal(simulator.weights, held_out.rows)[:, 0]
    watch_s = np.array(
        [
            simulator.watch_ms(items[item_id].duration_ms, bool(view), place) / 1000
            for item_id, view, place in zip(
                shown.item_ids.tolist(), long_view.tolist(), rng.random(len(shown)).tolist(), strict=True
            )
        ]
    )
    true_s = shown.watch_ms / 1000
    return {
        "watch_time_s": {
            "mean": [float(watch_s.mean()), float(true_s.mean())],
            "quantiles": {str(q): [float(np.quantile(watch_s, q)), float(np.quantile(true_s, q))] for q in PLACES},
            "wasserstein": wasserstein(watch_s, true_s),
            "wasserstein_of_mean": float(np.abs(true_s - true_s.mean()).mean()),
        },
        "session_length": session_lengths(simulator, held_out),
    }


def wasserstein(first: Floats, second: Floats) -> float:
    """The first Wasserstein distance of two samples of one size."""
    return float(np.abs(np.sort(first) - np.sort(second)).mean())


def session_lengths(simulator: Simulator, held_out: Walked) -> dict[str, list[float]]:
    """Shares of sessions with 1, 2, 3, 4 and more items: of the chance to stay by position, and true."""
    positions = np.round(np.expm1(held_out.rows[:, FEATURES.index("log_position")])).astype(int)
    stay = marginal(simulator.weights, held_out.rows)[:, 3]
    reach, lengths = 1.0, []
    for position in range(4):
        here = held_out.stay_known & (positions == position)
        chance = float(stay[here].mean()) if here.any() else 0.0
        lengths.append(reach * (1 - chance))
        reach *= chance
    ends = (held_out.gaps_ms < 0) | (held_out.gaps_ms > SESSION_GAP_MS)
    true = np.bincount(np.minimum(positions[ends & held_out.stay_known], 4), minlength=5)
    return {"simulator": [*lengths, reach], "log": (true / max(true.sum(), 1)).tolist()}


def _past_means(walked: Walked, prior: Floats) -> Floats:
    """[E, 4]: the mean of the user's earlier answers in the log, shrunk to the global mean as if of ten more."""
    totals: dict[int, Floats] = {}
    found = np.empty(walked.answers.shape)
    for row, user_id in enumerate(walked.exposures.user_ids.tolist()):
        total = totals.setdefault(user_id, np.append(10 * prior, 10.0))
        found[row] = total[:-1] / total[-1]
        total[:-1] += walked.answers[row]
        total[-1] += 1
    return found


def _item_means(fitted: Walked, held_out: Walked) -> Floats:
    """[E, 4]: the item's mean in the fitted half, shrunk to the global mean as if of ten more."""
    prior = fitted.answers.mean(0)
    ids, places = np.unique(fitted.exposures.item_ids, return_inverse=True)
    counts = np.bincount(places)[:, None]
    sums = np.stack([np.bincount(places, column) for column in fitted.answers.T.astype(float)], 1)
    means = (sums + 10 * prior) / (counts + 10)
    at = np.minimum(np.searchsorted(ids, held_out.exposures.item_ids), len(ids) - 1)
    expected: Floats = np.where((ids[at] == held_out.exposures.item_ids)[:, None], means[at], prior)
    return expected


def summary(result: dict[str, Any]) -> str:
    """For the terminal."""
    lines = [f"held-out exposures: {result['exposures']['held_out']}, fitted: {result['exposures']['fitted']}"]
    for name, head in result["heads"].items():
        losses = ", ".join(f"{which} {value:.5f}" for which, value in head["log_loss"].items())
        areas = ", ".join(f"{which} {value:.3f}" for which, value in head["auc"].items())
        pairs = " ".join(f"{expected:.4f}/{true:.4f}" for expected, true in head["deciles"])
        lines += [
            f"{name} (rate {head['rate']:.4f})",
            f"  log loss: {losses}",
            f"  AUC: {areas}",
            f"  deciles: {pairs}",
        ]
    lines += [f"{name}: {result[name]}" for name in ("watch_time_s", "session_length", "coefficients")]
    return "\n".join([*lines, *(f"Weak: {one}" for one in result["weaknesses"])])
