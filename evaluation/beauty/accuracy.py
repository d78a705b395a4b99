"""Recall and NDCG at 5 and 10 where one item is to be found: by the place of that item in the row's ranking."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from evaluation.beauty.dataset import Beauty, Longs, Part

TOPS = (5, 10)
NOWHERE = 1_000_000
COLUMNS = ("recall_at_5", "ndcg_at_5", "recall_at_10", "ndcg_at_10")
Scores = Callable[[Tensor], Tensor]
"""Of histories int64 [B, n] every item's score [B, N]."""


def figures(places: Longs) -> dict[str, float]:
    """The four columns, of the place [U] of each user's item: 0 is the best, NOWHERE is not recommended."""
    found: dict[str, float] = {}
    for top in TOPS:
        hit = places < top
        found[f"recall_at_{top}"] = float(hit.mean())
        found[f"ndcg_at_{top}"] = float(np.where(hit, 1 / np.log2(places + 2.0), 0.0).mean())
    return found


def places_of(scores: Tensor, truth: Tensor) -> Tensor:
    """Place [B] of item truth [B] by scores [B, N]; among equals the later one."""
    own = scores.gather(1, truth.unsqueeze(1))
    return (scores >= own).sum(1) - 1


def without_seen(scores: Tensor, histories: Tensor) -> Tensor:
    """Scores [B, N], -inf for the items of each history [B, n] (-1 where there is none)."""
    open_items = scores.clone()
    rows, columns = (histories >= 0).nonzero(as_tuple=True)
    open_items[rows, histories[rows, columns].long()] = -torch.inf
    return open_items


def batches(histories: Longs, size: int) -> Iterator[slice]:
    """Slices of `size` histories."""
    for first in range(0, len(histories), size):
        yield slice(first, first + size)


@torch.inference_mode()
def itemwise(scores: Scores, beauty: Beauty, part: Part, length: int, device: torch.device) -> dict[str, Longs]:
    """Places of the truth by a model that scores all items: seen items struck off, and not."""
    histories, truth = beauty.histories(part, length), beauty.truth(part)
    whole = seen_items(beauty, part)
    open_places, all_places = [], []
    for at in batches(histories, 256):
        found = scores(torch.from_numpy(histories[at]).to(device)).float()
        wanted = torch.from_numpy(truth[at]).to(device)
        all_places.append(places_of(found, wanted))
        open_places.append(places_of(without_seen(found, torch.from_numpy(whole[at]).to(device)), wanted))
    return {"unseen": torch.cat(open_places).cpu().numpy(), "all": torch.cat(all_places).cpu().numpy()}


def seen_items(beauty: Beauty, part: Part) -> Longs:
    """All items [U, longest] that each user has before a part, padded with NONE."""
    return beauty.histories(part, int(np.diff(beauty.starts).max()))
