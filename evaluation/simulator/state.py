"""What a simulated user carries from one exposure to the next: interests, habits, fatigue, and the session so far."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

SESSION_GAP_MS = 1_800_000
RECENT = 10
DRIFT = 0.1
"""The share of an item's embedding in the interests after the item was watched long."""
HABIT_STEP = 0.05
FOLLOW_RATE, STAY_RATE = 0.0013, 0.15
"""About those of all users; how much they weigh is fitted."""
PRIOR = 10.0
"""A user's own rates are shrunk to those of all as if of so many exposures."""

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ShownItem:
    """An item as its features; all that is needed of one never seen before."""

    item_id: int
    embedding: Vector  # [d], of length 1 or 0
    duration_ms: int
    author_id: int
    tags: tuple[str, ...]


@dataclass(slots=True)
class UserState:
    """The state before the next exposure; `interests` is float64 [d]."""

    user_id: int
    interests: Vector
    long_view_habit: float
    like_habit: float
    authors: deque[int] = field(default_factory=lambda: deque(maxlen=RECENT))
    tags: deque[tuple[str, ...]] = field(default_factory=lambda: deque(maxlen=RECENT))
    position: int = 0
    last_ms: int | None = None
    shown: int = 0  # exposures with a time
    follows: int = 0
    stays: int = 0

    @property
    def follow_habit(self) -> float:
        """The share of exposures that were answered with a follow."""
        return (self.follows + PRIOR * FOLLOW_RATE) / (self.shown + PRIOR)

    def stay_habit(self, time_ms: int) -> float:
        """The share of exposures after which the session went on, as known when one at `time_ms` is shown."""
        return (self.stays + self._stayed(time_ms) + PRIOR * STAY_RATE) / (self.shown + PRIOR)

    def position_at(self, time_ms: int) -> int:
        """How many items of the session were shown before one at `time_ms`; after a gap a new session begins."""
        return 0 if self.last_ms is None or time_ms - self.last_ms > SESSION_GAP_MS else self.position

    def affinity(self, item: ShownItem) -> float:
        """The cosine of interests and item, in -1…1; 0 where either is unknown."""
        length = float(np.linalg.norm(self.interests))
        return float(self.interests @ item.embedding) / length if length > 0 else 0.0

    def author_repeats(self, item: ShownItem) -> int:
        """How many of the recent items have the item's author."""
        return self.authors.count(item.author_id)

    def tag_share(self, item: ShownItem) -> float:
        """The share, of RECENT, of recent items that have a tag in common with the item."""
        return sum(not set(item.tags).isdisjoint(tags) for tags in self.tags) / RECENT

    def _stayed(self, time_ms: int) -> bool:
        return self.last_ms is not None and time_ms - self.last_ms <= SESSION_GAP_MS

    def update(
        self, item: ShownItem, time_ms: int | None, *, long_view: bool, like: bool, follow: bool = False
    ) -> None:
        """After an exposure. Without a time (a history has none) the session does not go on."""
        if long_view or like:
            self.interests = (1 - DRIFT) * self.interests + DRIFT * item.embedding
        self.long_view_habit += HABIT_STEP * (long_view - self.long_view_habit)
        self.like_habit += HABIT_STEP * (like - self.like_habit)
        self.authors.append(item.author_id)
        self.tags.append(item.tags)
        if time_ms is not None:
            self.stays += self._stayed(time_ms)
            self.shown += 1
            self.follows += follow
            self.position = self.position_at(time_ms) + 1
            self.last_ms = time_ms
