"""The real items with embeddings of their tags alone: quickly made."""

from __future__ import annotations

import numpy as np

from evaluation.simulator.fit import shown_items
from evaluation.simulator.state import ShownItem
from stream.replay.kuairand import KuaiRand
from stream.replay.log import Items


def tagged_items() -> dict[int, ShownItem]:
    log = KuaiRand()
    table = log._read("videos.parquet")
    ids = np.asarray(table["video_id"], np.int64)
    tags = tuple(tuple(tag for tag in str(row).split(",") if tag) for row in table["tag"].to_pylist())
    names = {tag: place for place, tag in enumerate(sorted({tag for row in tags for tag in row}))}
    embeddings = np.zeros((len(ids), len(names)), np.float32)
    for row, own in enumerate(tags):
        embeddings[row, [names[tag] for tag in own]] = 1
    durations = np.nan_to_num(np.asarray(table["video_duration"], np.float64)).astype(np.int64)
    authors = np.asarray(table["author_id"], np.int64)
    return shown_items(Items(ids, embeddings, durations, authors, tags, np.zeros_like(ids)))
