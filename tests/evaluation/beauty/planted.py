"""A made-up data set in the form of Amazon Beauty: users walk through groups of items, most of them in a circle."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from evaluation.beauty.dataset import SEQUENCES, TEXTS

GROUPS, ITEMS_OF_GROUP = 24, 10
STAYS = 0.85
"""How often the next item is of the group that follows."""


def planted(folder: Path, users: int = 1500, seed: int = 5) -> Path:
    """Write the two files. Groups follow each other in a circle; texts say a little of the group."""
    random = np.random.default_rng(seed)
    count = GROUPS * ITEMS_OF_GROUP
    lines = []
    for user in range(users):
        group, items = int(random.integers(GROUPS)), list[int]()
        while len(items) < 5 + user % 6:
            group = (group + 1) % GROUPS if random.random() < STAYS else int(random.integers(GROUPS))
            item = group * ITEMS_OF_GROUP + int(random.integers(ITEMS_OF_GROUP)) + 1
            if item not in items:
                items.append(item)
        lines.append(" ".join(map(str, [user + 1, *items])))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SEQUENCES).write_text("\n".join(lines) + "\n")
    of_group = random.standard_normal((GROUPS, 64))
    texts = np.repeat(of_group, ITEMS_OF_GROUP, axis=0) + 2 * random.standard_normal((count, 64))
    np.savez(folder / TEXTS, item=np.arange(1, count + 1, dtype=np.int32), emb=texts.astype(np.float16))
    return folder
