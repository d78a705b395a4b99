"""An impression while its actions are waited for, and an action that waits for its impression."""

from __future__ import annotations

from dataclasses import dataclass

from onerec.settings import LabelSettings
from schemas.labels import Label
from schemas.records import Action, ActionKind

VIEWED = int(Label.LONG_VIEW)
"""In `Exposure.kinds` the bit of a view of any length; the others are those of `Label`."""
KIND_BITS: dict[ActionKind, int] = {
    ActionKind.VIEW: VIEWED,
    ActionKind.LIKE: int(Label.LIKE),
    ActionKind.FOLLOW: int(Label.FOLLOW),
    ActionKind.COMMENT: int(Label.COMMENT),
    ActionKind.SHARE: int(Label.SHARE),
    ActionKind.DISLIKE: int(Label.DISLIKE),
}


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

    def take(self, action: Action) -> bool:
        """Add what an action says; False where nothing is new. The order of actions makes no difference."""
        bit = KIND_BITS[action.kind]
        known = (self.kinds, self.watch_ms, self.duration_ms, self.produced_ms)
        self.produced_ms = max(self.produced_ms, action.produced_ms) if self.kinds else action.produced_ms
        self.kinds |= bit
        if bit == VIEWED:
            self.watch_ms = max(self.watch_ms, action.watch_ms or 0)
            self.duration_ms = max(self.duration_ms, action.duration_ms or 0)
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
    value: bytes


@dataclass(frozen=True, slots=True)
class Waiting:
    """An action without an impression so far."""

    action: Action
    came: Came

    def labels(self, rule: LabelSettings) -> int:
        """The label byte that this action alone makes."""
        bit = KIND_BITS[self.action.kind]
        if bit != VIEWED:
            return bit
        return VIEWED if rule.is_long_view(self.action.watch_ms or 0, self.action.duration_ms or 0) else 0
