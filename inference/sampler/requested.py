"""The constraints of a request as the engine takes them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from onerec.catalogue import CatalogueSnapshot
from onerec.features import HistoryArrays
from schemas.records import Request


class Requested(NamedTuple):
    """`exclude` int64 leaves; `allowed` bool [N items], None for all."""

    exclude: Tensor
    allowed: Tensor | None


def requested(request: Request, history: HistoryArrays, catalogue: CatalogueSnapshot) -> Requested:
    """What the request leaves out: items of the history, named items, other tags, too long ones."""
    named = np.frombuffer(request.exclude_items, "<i8")
    items = np.concatenate([history.items, named]) if request.exclude_seen else named
    leaves = catalogue.leaves(items)
    allowed: Tensor | None = None
    if request.tags or request.max_duration_ms is not None:
        mask = np.ones(len(catalogue), bool)
        if request.max_duration_ms is not None:
            mask &= catalogue.durations_ms <= request.max_duration_ms
        if request.tags:
            wanted = frozenset(request.tags)
            mask &= np.fromiter((not wanted.isdisjoint(tags) for tags in catalogue.tags), bool, len(catalogue))
        allowed = torch.from_numpy(mask)
    return Requested(torch.from_numpy(leaves[leaves >= 0]), allowed)
