"""Amazon Beauty as the published figures have it, or a slice of it: who reviewed what in which order, and item texts.

The data may be used for research but not be passed on, so they are no part of this; `FOLDER_VARIABLE` names the folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from onerec.errors import DependencyMissingError, SettingsError

Longs = NDArray[np.int64]
Floats = NDArray[np.float32]
Part = Literal["validation", "test"]

FOLDER_VARIABLE = "AMAZON_BEAUTY"
DEFAULT_FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "amazon-beauty"
SEQUENCES, TEXTS = "Beauty.txt", "item_text_minilm_fp16.npz"
HELD_OUT: dict[Part, int] = {"validation": 2, "test": 1}
"""Items at the end of a sequence that are hidden when this part is predicted; the first of them is the truth."""
NONE = -1
"""Stands in a history where there is no item."""
HOW_TO_GET = (
    f"Give the folder by --data or {FOLDER_VARIABLE}. It holds two files: {SEQUENCES}, a line `user item item ...` in "
    "time order for each user of Amazon Beauty 2014 5-core (the file of that name in S3-Rec's repository, "
    f"RUCAIBox/CIKM2020-S3Rec), and {TEXTS}, arrays `item` [N] and `emb` [N, d] of sentence embeddings of the items' "
    "titles, brands and categories (all-MiniLM-L6-v2 here)."
)


@dataclass(frozen=True, slots=True)
class Beauty:
    """Sequences of U users over N items: user u has items[starts[u]:starts[u + 1]], oldest first, no item twice."""

    starts: Longs  # [U + 1]
    items: Longs  # [E], 0..N-1
    texts: Floats  # [N, d]

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def item_count(self) -> int:
        """N."""
        return len(self.texts)

    def training(self) -> tuple[Longs, Longs]:
        """Sequences without their last two items, all that may be trained on: (starts [U + 1], items)."""
        lengths = np.maximum(np.diff(self.starts) - 2, 0)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        at = np.repeat(self.starts[:-1] - starts[:-1], lengths) + np.arange(starts[-1])
        return starts, self.items[at]

    def histories(self, part: Part, length: int) -> Longs:
        """What is known when a part is predicted: the `length` newest items [U, length], oldest first, then NONE."""
        ends = self.starts[1:] - HELD_OUT[part]
        return windows(self.items, np.maximum(self.starts[:-1], ends - length), ends, length)

    def truth(self, part: Part) -> Longs:
        """The item [U] that is to be found."""
        return self.items[self.starts[1:] - HELD_OUT[part]]

    def spread_users(self, count: int) -> Longs:
        """At most `count` users, evenly over the file: its first ones are harder to predict than the others."""
        return np.linspace(0, len(self), min(count, len(self)), endpoint=False).astype(np.int64)

    def first(self, users: int | None) -> Beauty:
        """A slice: the first users, and the items that these have, numbered anew."""
        if users is None or users >= len(self):
            return self
        starts = self.starts[: users + 1]
        kept, items = np.unique(self.items[: starts[-1]], return_inverse=True)
        return Beauty(starts, items.astype(np.int64), self.texts[kept])


def windows(items: Longs, begins: Longs, ends: Longs, length: int) -> Longs:
    """Items [W, length] of windows that end before `ends` and are at most `length` long; NONE fills the right."""
    steps = np.arange(length)
    inside = steps < (ends - begins)[:, None]
    at = np.where(inside, begins[:, None] + steps, 0)
    return np.where(inside, items[at], NONE)


def load(folder: Path) -> Beauty:
    """Read the folder.

    Raises DependencyMissingError where a file is missing, SettingsError where one is not as said.
    """
    for name in (SEQUENCES, TEXTS):
        if not (folder / name).is_file():
            raise DependencyMissingError(f"{folder / name} is not there.", HOW_TO_GET)
    rows = [[int(word) for word in line.split()[1:]] for line in (folder / SEQUENCES).read_text().splitlines() if line]
    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    numbers = np.array([item for row in rows for item in row], np.int64)
    with np.load(folder / TEXTS) as texts:
        order = np.argsort(texts["item"], kind="stable")
        known, embeddings = texts["item"][order], texts["emb"][order].astype(np.float32)
    at = np.minimum(np.searchsorted(known, numbers), len(known) - 1)
    if not rows or min(map(len, rows)) < 3:
        raise SettingsError(f"{folder / SEQUENCES} has a user with fewer than three items.", HOW_TO_GET)
    if (known[at] != numbers).any():
        raise SettingsError(f"{folder / TEXTS} lacks items that {SEQUENCES} has.", HOW_TO_GET)
    return Beauty(starts, at.astype(np.int64), embeddings)
