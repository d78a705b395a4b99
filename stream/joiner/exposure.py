"""An impression while its actions are waited for, and an action that waits for its impression."""

from __future__ import annotations

from dataclasses import dataclass, field

from onerec.settings import LabelSettings
from schemas.labels import Label
from stream.joiner.rows import ITEM, KIND_BITS, TIME_MS, VIEWED, ActionRow

USUAL_BYTES = 128
"""An action's key and value are shorter, unless somebody pads them."""


@dataclass(slots=True)
class Exposure:
    """What was shown and what was done with it so far. Actions may come in any order, and twice."""

    request_id: int
    item_id: int
    position: int
    time_ms: int
    model_version: int | None
    produced_ms: int
    kinds: int = 0
    watch_ms: int = 0
    duration_ms: int = 0
    packed: bytes | None = None
    """Its bytes in the changelog, kept until an action changes it: most are written many times unchanged."""

    @property
    def key(self) -> tuple[int, int]:
        """What an action names: one item of one request's answer."""
        return (self.request_id, self.item_id)

    def take(self, action: ActionRow) -> bool:
        """Add what an action says; False where nothing is new. The order of actions makes no difference."""
        _, _, _, kind, _, watch_ms, duration_ms, produced_ms = action
        known = (self.kinds, self.watch_ms, self.duration_ms, self.produced_ms)
        if not self.kinds or produced_ms > self.produced_ms:
            self.produced_ms = produced_ms
        self.kinds |= KIND_BITS[kind]
        if watch_ms is not None and watch_ms > self.watch_ms:
            self.watch_ms = watch_ms
        if duration_ms is not None and duration_ms > self.duration_ms:
            self.duration_ms = duration_ms
        if known == (self.kinds, self.watch_ms, self.duration_ms, self.produced_ms):
            return False
        self.packed = None
        return True

    def labels(self, rule: LabelSettings) -> int:
        """The label byte: a view counts where it is a long one."""
        labels = self.kinds & ~VIEWED
        if self.kinds & VIEWED and rule.is_long_view(self.watch_ms, self.duration_ms):
            labels |= Label.LONG_VIEW
        return int(labels)


@dataclass(frozen=True, slots=True)
class Came:
    """Where a record stood in the log and its bytes, to refuse it whole later."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """An action without an impression so far."""

    action: ActionRow
    came: Came
    places: int = field(init=False)
    """How many actions of usual size it takes the space of: key and value are kept whole in the state."""

    def __post_init__(self) -> None:
        size = len(self.came.key or b"") + len(self.came.value or b"")
        object.__setattr__(self, "places", 1 + size // USUAL_BYTES)

    @property
    def time_ms(self) -> int:
        """Its event time."""
        return self.action[TIME_MS]

    @property
    def item_id(self) -> int:
        """What it is about."""
        return self.action[ITEM]

    def labels(self, rule: LabelSettings) -> int:
        """The label byte that this action alone makes."""
        _, _, _, kind, _, watch_ms, duration_ms, _ = self.action
        bit = KIND_BITS[kind]
        if bit != VIEWED:
            return bit
        return VIEWED if rule.is_long_view(watch_ms or 0, duration_ms or 0) else 0
