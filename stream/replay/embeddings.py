"""Embeddings of a log's items where it brings none: from its histories and what is known of the items."""

from __future__ import annotations

import numpy as np

from stream.replay.log import Floats, Histories, Longs
from stream.tokenizer.embeddings import Attributes, item_embeddings

__all__ = ["Attributes", "embed"]


def embed(item_ids: Longs, histories: Histories, attributes: Attributes) -> Floats:
    """[N, d] embeddings, in the order of `item_ids` [N]; exposures of other items are passed over."""
    order = np.argsort(item_ids)
    place = np.minimum(np.searchsorted(item_ids[order], histories.items), len(order) - 1)
    rows = order[place]
    known = item_ids[rows] == histories.items
    users = np.repeat(np.arange(len(histories)), np.diff(histories.starts))[known]
    starts = np.searchsorted(users, np.arange(len(histories) + 1))
    return item_embeddings(rows[known], starts.astype(np.int64), attributes)
