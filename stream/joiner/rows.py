"""Events as the join takes them: tuples of their fields, which is what columns are zipped to.

A record object for each event costs more than joining it. The order is that of the `.avsc` files.
"""

from __future__ import annotations

from typing import Final

from schemas.labels import Label
from schemas.records import Action, ActionKind, Impression

ImpressionRow = tuple[int, int, int, int, int, int | None, int]
"""request_id, user_id, item_id, position, time_ms, model_version, produced_ms"""
ActionRow = tuple[int, int, int, int, int, int | None, int | None, int]
"""request_id, user_id, item_id, number of its kind, time_ms, watch_ms, duration_ms, produced_ms"""

REQUEST: Final = 0
USER: Final = 1
ITEM: Final = 2
TIME_MS: Final = 4
"""Places that both rows share."""

VIEWED = int(Label.LONG_VIEW)
"""The bit of a view of any length; whether it was a long one is known when its window has passed."""
_BITS = {
    ActionKind.VIEW: VIEWED,
    ActionKind.LIKE: int(Label.LIKE),
    ActionKind.FOLLOW: int(Label.FOLLOW),
    ActionKind.COMMENT: int(Label.COMMENT),
    ActionKind.SHARE: int(Label.SHARE),
    ActionKind.DISLIKE: int(Label.DISLIKE),
}
KIND_BITS = tuple(_BITS[kind] for kind in ActionKind)
"""The label bit of an action by the number of its kind, as the schema's enum counts."""
_NUMBERS = {kind: number for number, kind in enumerate(ActionKind)}


def impression_row(record: Impression) -> ImpressionRow:
    """The row of a record."""
    return (
        record.request_id,
        record.user_id,
        record.item_id,
        record.position,
        record.time_ms,
        record.model_version,
        record.produced_ms,
    )


def action_row(record: Action) -> ActionRow:
    """The row of a record."""
    return (
        record.request_id,
        record.user_id,
        record.item_id,
        _NUMBERS[record.kind],
        record.time_ms,
        record.watch_ms,
        record.duration_ms,
        record.produced_ms,
    )
