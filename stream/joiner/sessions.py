"""Exposures in a row to a Session record: its id, its totals, whether it is of high quality."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

from onerec.settings import HighQualityRule, JoinerSettings
from schemas.labels import Label
from schemas.records import ClosedBy, Session, SessionItem
from stream.joiner.exposure import Exposure
from stream.joiner.history import ExposureHistory

INTERACTION = int(Label.LIKE | Label.FOLLOW | Label.COMMENT | Label.SHARE)
_IDENTITY = struct.Struct("<4q")
_POSITIVE_LONG = 2**63 - 1


def session_id(user_id: int, first: Exposure) -> int:
    """63 bits that depend on the user and the first exposure alone, so a repeated session has the same id."""
    identity = _IDENTITY.pack(user_id, first.request_id, first.item_id, first.time_ms)
    digest = hashlib.blake2b(identity, digest_size=8, person=b"session").digest()
    return int.from_bytes(digest, "little") & _POSITIVE_LONG


def session_record(
    user_id: int, exposures: Sequence[Exposure], before: ExposureHistory, closed_by: ClosedBy, settings: JoinerSettings
) -> Session:
    """The record of 1 to m exposures in event-time order, with the history before the first."""
    items = tuple(_item(exposure, settings) for exposure in exposures)
    first = exposures[0]
    return Session(
        session_id=session_id(user_id, first),
        user_id=user_id,
        history_items=before.items,
        history_times_ms=before.times_ms,
        history_labels=before.labels,
        items=items,
        start_ms=first.time_ms,
        end_ms=exposures[-1].time_ms,
        total_watch_ms=sum(item.watch_ms for item in items),
        high_quality=is_high_quality(items, settings.high_quality),
        closed_by=closed_by,
        model_version=first.model_version,
    )


def _item(exposure: Exposure, settings: JoinerSettings) -> SessionItem:
    return SessionItem(
        item_id=exposure.item_id,
        request_id=exposure.request_id,
        position=exposure.position,
        time_ms=exposure.time_ms,
        watch_ms=exposure.watch_ms,
        duration_ms=exposure.duration_ms,
        labels=exposure.labels(settings.labels),
        model_version=exposure.model_version,
        produced_ms=exposure.produced_ms,
    )


def is_high_quality(items: Sequence[SessionItem], rule: HighQualityRule) -> bool:
    """The paper's criteria (section 3.1): enough items watched, enough watch time, an interaction.

    A criterion set to 0 or false is off; with all off every session passes.
    """
    met: list[bool] = []
    if rule.min_watched:
        met.append(sum(item.labels & Label.LONG_VIEW for item in items) >= rule.min_watched)
    if rule.min_total_watch_ms:
        met.append(sum(item.watch_ms for item in items) >= rule.min_total_watch_ms)
    if rule.need_interaction:
        met.append(any(item.labels & INTERACTION for item in items))
    return all(met) if rule.combine == "all" or not met else any(met)
