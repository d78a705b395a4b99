"""How a user answers: logistic heads on state and item, watch times and returns from fitted quantiles.

One uniform number decides watch time and long view together, so that a higher probability of a long view never
shortens the watch time. The numbers are a function of seed, user, item and time: arms of an A/B share them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.simulator.state import SESSION_GAP_MS, ShownItem, UserState
from onerec.settings import LabelSettings

Floats = NDArray[np.float64]
FEATURES = (
    "constant",
    "item_long_view",
    "item_like",
    "log_duration",
    "user_long_view",
    "user_like",
    "user_follow",
    "user_stay",
    "affinity",
    "author_repeats",
    "tag_share",
    "log_position",
    "hour_sin",
    "hour_cos",
)
HEADS = ("long_view", "like", "follow", "stay")
DURATION_EDGES_MS = np.array([15_000, 30_000, 60_000, 90_000, 150_000, 240_000])
DAY_MS = 86_400_000
RARE = 1e-5
"""Rates below are taken for this: of follows, whose rate over all is .0013."""
RULE = LabelSettings()


def threshold_ms(duration_ms: int) -> int:
    """The shortest watch time that is a long view of an item of this length (0: unknown)."""
    whole_ms = duration_ms // RULE.clock_ms * RULE.clock_ms
    if whole_ms <= 0:
        return RULE.long_view_ms
    return min(RULE.long_view_ms, int(np.ceil(RULE.short_video_share * whole_ms)))


def duration_bucket(duration_ms: int) -> int:
    """Row of the watch-time quantiles."""
    return int(np.searchsorted(DURATION_EDGES_MS, duration_ms))


def sigmoid(logits: Floats) -> Floats:
    """Elementwise, without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)))


@dataclass(frozen=True, slots=True)
class ItemRates:
    """Smoothed rates of long view and like by item, by tag for items never seen, and overall; each is [2]."""

    items: dict[int, Floats]
    tags: dict[str, Floats]
    overall: Floats

    def of(self, item: ShownItem) -> Floats:
        """Float64 [2]: the item's own rates, else the mean of its tags', else the overall ones."""
        own = self.items.get(item.item_id)
        return self.by_tags(item.tags) if own is None else own

    def by_tags(self, tags: tuple[str, ...]) -> Floats:
        """What is expected of an item with these tags."""
        known = [self.tags[tag] for tag in tags if tag in self.tags]
        return np.mean(known, axis=0) if known else self.overall


@dataclass(frozen=True, slots=True)
class Answer:
    """What the user did; `return_ms` is the time until the next session's first item, None where he stays."""

    watch_ms: int
    long_view: bool
    like: bool
    follow: bool
    stays: bool
    return_ms: int | None


@dataclass(frozen=True, slots=True)
class Probabilities:
    """Like, follow and stay are over both outcomes of the long view."""

    long_view: float
    like: float
    follow: float
    stay: float


@dataclass(frozen=True, slots=True)
class Simulator:
    """The fitted users. `weights` [4, F + 1]: the last column is the long view's, 0 in its own head."""

    rates: ItemRates
    weights: Floats
    watch_quantiles: Floats  # [duration buckets, 2, Q], in multiples of the long view's threshold
    return_quantiles: Floats  # [Q], ms

    def features(self, state: UserState, item: ShownItem, time_ms: int) -> Floats:
        """Float64 [F]."""
        return features(self.rates, state, item, time_ms)

    def probabilities(self, state: UserState, item: ShownItem, time_ms: int) -> Probabilities:
        """Of each answer, before any is drawn."""
        return Probabilities(*marginal(self.weights, self.features(state, item, time_ms)[None])[0].tolist())

    def respond(self, state: UserState, item: ShownItem, time_ms: int, seed: int) -> Answer:
        """Draw the user's answer; `state` stays as it is, see UserState.update."""
        draws = np.random.default_rng([seed, state.user_id, item.item_id, time_ms]).random(5)
        logits = self.weights[:, :-1] @ self.features(state, item, time_ms)
        shorter = 1 - float(sigmoid(logits[:1])[0])
        long_view = bool(draws[0] >= shorter)
        place = (draws[0] - shorter) / (1 - shorter) if long_view else draws[0] / shorter
        watch_ms = self.watch_ms(item.duration_ms, long_view, place)
        like, follow, stays = draws[1:4] < sigmoid(logits[1:] + self.weights[1:, -1] * long_view)
        away_ms = None if stays else max(SESSION_GAP_MS + 1, int(quantile_at(self.return_quantiles, draws[4])))
        return Answer(watch_ms, long_view, bool(like), bool(follow), bool(stays), away_ms)

    def watch_ms(self, duration_ms: int, long_view: bool, place: float) -> int:
        """The watch time at `place` in 0…1 of those of short, or of long, views of items of this length."""
        quantiles = self.watch_quantiles[duration_bucket(duration_ms), int(long_view)]
        limit_ms = threshold_ms(duration_ms)
        found_ms = int(quantile_at(quantiles, place) * limit_ms)
        return max(found_ms, limit_ms) if long_view else max(0, min(found_ms, limit_ms - 1))


def features(rates: ItemRates, state: UserState, item: ShownItem, time_ms: int) -> Floats:
    """Float64 [F] in the order of FEATURES."""
    hour = 2 * np.pi * (time_ms % DAY_MS) / DAY_MS
    item_long, item_like = rates.of(item)
    return np.array(
        [
            1.0,
            _logit(item_long),
            _logit(item_like),
            np.log1p(item.duration_ms / 1000) / 5,
            _logit(state.long_view_habit),
            _logit(state.like_habit),
            _logit(state.follow_habit, RARE),
            _logit(state.stay_habit(time_ms)),
            state.affinity(item),
            np.log1p(state.author_repeats(item)),
            state.tag_share(item),
            np.log1p(state.position_at(time_ms)),
            np.sin(hour),
            np.cos(hour),
        ]
    )


def marginal(weights: Floats, rows: Floats) -> Floats:
    """Probabilities [E, 4] of the heads for features [E, F]; the long view is summed out of the other heads."""
    logits = rows @ weights[:, :-1].T
    long_view = sigmoid(logits[:, :1])
    after = sigmoid(logits + weights[:, -1])
    whole: Floats = long_view * after + (1 - long_view) * sigmoid(logits)
    whole[:, :1] = long_view
    return whole


def quantile_at(quantiles: Floats, place: float) -> float:
    """The value at `place` in 0…1 of evenly spaced quantiles [Q]."""
    return float(np.interp(place, np.linspace(0, 1, len(quantiles)), quantiles))


def _logit(rate: float, least: float = 0.002) -> float:
    bounded = min(max(rate, least), 1 - least)
    return float(np.log(bounded / (1 - bounded)))
