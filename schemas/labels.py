"""What a user did with an exposure, as the bits of one byte (fields `labels` and `history_labels`)."""

from __future__ import annotations

from enum import IntFlag


class Label(IntFlag):
    """The bits; a byte on the wire is their sum."""

    NONE = 0
    LONG_VIEW = 1
    LIKE = 2
    FOLLOW = 4
    COMMENT = 8
    SHARE = 16
    DISLIKE = 32


POSITIVE = Label.LONG_VIEW | Label.LIKE | Label.FOLLOW | Label.COMMENT | Label.SHARE
"""Effectively watched or interacted with: what the paper calls positive behaviour (section 3.1)."""

LABEL_VALUES = 64
"""How many label bytes exist: all are below this."""


def is_positive(labels: int) -> bool:
    """Whether a label byte counts as positive: any positive bit and no dislike."""
    return bool(labels & POSITIVE) and not labels & Label.DISLIKE
