"""Embeddings of a log's items, from its histories and the items' attributes."""

from __future__ import annotations

import numpy as np

from stream.replay.log import Floats, Histories, Longs
from stream.tokenizer.embeddings import Attributes, item_embeddings

__all__ = ["Attributes", "embed"]


def embed(item_ids: Longs, histories: Histories, attributes: Attributes) -> Floats:
    """[N, d] embeddings of the items, in the order of `item_ids`; events with other items are left out."""
    order = np.argsort(item_ids, kind="stable")
    place = np.minimum(np.searchsorted(item_ids[order], histories.items), max(len(order) - 1, 0))
    rows = order[place]
    known = item_ids[rows] == histories.items
    before = np.concatenate(([0], np.cumsum(known)))  # known events before each event
    return item_embeddings(rows[known], before[histories.starts], attributes)
