"""A request's constraints as what the engine understands: leaves to leave out and a mask of leaves to choose from."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onerec.catalogue import CatalogueSnapshot
from schemas.records import Request


class TagIndex:
    """Masks of the items that carry a tag, made when first asked for and kept as long as their snapshot."""

    def __init__(self) -> None:
        self._of: CatalogueSnapshot | None = None
        self._masks: dict[str, NDArray[np.bool_]] = {}

    def any_of(self, snapshot: CatalogueSnapshot, tags: Iterable[str]) -> NDArray[np.bool_]:
        """Bool [N]: items that carry at least one of `tags`."""
        if self._of is not snapshot:
            self._of, self._masks = snapshot, {}
        mask = np.zeros(len(snapshot), np.bool_)
        for tag in tags:
            if tag not in self._masks:
                self._masks[tag] = snapshot.tagged(tag)
            mask |= self._masks[tag]
        return mask


def allowed_items(request: Request, snapshot: CatalogueSnapshot, tags: TagIndex) -> NDArray[np.bool_] | None:
    """Bool [N]: items that the request's tags and duration allow; None where it names neither."""
    mask: NDArray[np.bool_] | None = None
    if request.tags:
        mask = tags.any_of(snapshot, request.tags)
    if request.max_duration_ms is not None:
        short = snapshot.durations_ms <= request.max_duration_ms
        mask = short if mask is None else mask & short
    return mask


def excluded_leaves(request: Request, seen: NDArray[np.int64], snapshot: CatalogueSnapshot) -> NDArray[np.int64]:
    """Distinct leaves that the request leaves out: those it names, and what the user has seen unless it wants that."""
    named = np.frombuffer(request.exclude_items, "<i8")
    leaves = snapshot.leaves(np.concatenate([named, seen]) if request.exclude_seen else named)
    return np.unique(leaves[leaves >= 0])


def stacked(masks: list[NDArray[np.bool_] | None], items: int) -> Tensor | None:
    """Masks of a batch as bool [B, N]; None where no request has one."""
    if all(mask is None for mask in masks):
        return None
    return torch.from_numpy(np.stack([np.ones(items, np.bool_) if mask is None else mask for mask in masks]))
