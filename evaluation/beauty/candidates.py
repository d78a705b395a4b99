"""What generative models recommend: the items of their beams, and how probable each of them is to whom.

One model's beam gives its items with their log-probabilities. Of several models that name the items by different ids,
the beams are put together, and every model says how probable the items of all of them are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evaluation.beauty.accuracy import NOWHERE, batches, seen_items
from evaluation.beauty.dataset import NONE, Beauty, Longs, Part
from evaluation.beauty.model import ItemOneRec, history_of
from inference.engine.search import Engine
from onerec.catalogue import CatalogueSnapshot

LogPrior = Callable[[Tensor], Tensor]
PACKED = {"cpu": 4_096, "cuda": 16_384}
"""Candidates whose log-probabilities are computed at once."""


BEAMS_AT_ONCE = {"cpu": 64, "cuda": 256}
"""Users whose beams are searched at once."""


@dataclass(frozen=True, slots=True)
class Member:
    """A trained model and the catalogue of its ids."""

    model: ItemOneRec
    catalogue: CatalogueSnapshot


@dataclass(frozen=True, slots=True)
class Candidates:
    """Of U users: items int64 [U, C], each once, then NONE; and log-probabilities float32 [U, C] of each kind.

    `codes` are means over the members of what they generate, `items` the same of their item vectors (0 without any),
    `counts` the co-occurrence prior. `seen` bool [U, C] says which of them the user has already.
    """

    items: Tensor
    seen: Tensor
    codes: Tensor
    vectors: Tensor
    counts: Tensor

    def places(self, truth: Tensor, scores: Tensor, *, with_seen: bool) -> Longs:
        """The place [U] of truth [U] by scores [U, C], among all or among those not seen; NOWHERE if not there."""
        shut = self.items == NONE if with_seen else (self.items == NONE) | self.seen
        scores = scores.masked_fill(shut, -torch.inf)
        right = self.items == truth.unsqueeze(1)
        own = torch.where(right, scores, -torch.inf).amax(1, keepdim=True)
        ahead = (scores > own).sum(1)
        return torch.where(right.any(1), ahead, NOWHERE).numpy()


@torch.inference_mode()
def beam(member: Member, histories: Longs, width: int) -> Longs:
    """The items [U, width] of the beam for each history [U, n], best first, NONE where there are fewer."""
    device, engine, found = member.model.bos.device, Engine(member.model), []
    for at in batches(histories, BEAMS_AT_ONCE[device.type]):
        history = history_of(torch.from_numpy(histories[at]), member.catalogue.trie).to(device)
        found.append(engine.rank(history, member.catalogue, beam_width=width).sessions[:, :, 0].cpu().numpy())
    return np.concatenate(found)


@torch.inference_mode()
def candidates(
    members: list[Member],
    beauty: Beauty,
    part: Part,
    width: int,
    *,
    prior: LogPrior | None = None,
    users: Longs | None = None,
) -> Candidates:
    """The beams of all members, `width` items each, put together; for `users` or all.

    `prior` gives log-probabilities [B, N] of all items by counts for histories [B, n].
    """
    rows = np.arange(len(beauty)) if users is None else users
    histories = beauty.histories(part, members[0].model.config.history_items)[rows]
    merged = once(np.concatenate([beam(member, histories, width) for member in members], axis=1))
    whole = seen_items(beauty, part)[rows]
    seen = np.concatenate([(merged[at, :, None] == whole[at, None, :]).any(2) for at in batches(merged, 512)])
    columns: dict[str, list[Tensor]] = {"codes": [], "vectors": [], "counts": []}
    tries = [member.catalogue.trie.to(member.model.bos.device) for member in members]
    for at in batches(histories, max(1, PACKED[members[0].model.bos.device.type] // merged.shape[1])):
        own = torch.from_numpy(merged[at]).to(tries[0].device).clamp(min=0)
        history = torch.from_numpy(histories[at]).to(tries[0].device)
        codes, vectors = torch.zeros(own.shape, device=own.device), torch.zeros(own.shape, device=own.device)
        for member, trie in zip(members, tries, strict=True):
            memory = member.model.encode(history_of(history, trie))
            codes += member.model.next_item_log_probs(memory, own, trie) / len(members)
            if member.model.with_items:
                logits = member.model.item_logits(memory)
                vectors += torch.log_softmax(logits, dim=1).gather(1, own) / len(members)
        columns["codes"].append(codes.cpu())
        columns["vectors"].append(vectors.cpu())
        known = torch.zeros_like(codes) if prior is None else prior(history).gather(1, own)
        columns["counts"].append(known.cpu())
    joined = {name: torch.cat(parts) for name, parts in columns.items()}
    return Candidates(torch.from_numpy(merged), torch.from_numpy(seen & (merged != NONE)), **joined)


def once(items: Longs) -> Longs:
    """Items [U, C] without repetitions; NONE stands at the end of each row."""
    ordered = np.sort(items, axis=1)[:, ::-1]
    again = np.concatenate([np.zeros((len(items), 1), bool), ordered[:, 1:] == ordered[:, :-1]], axis=1)
    return np.sort(np.where(again, NONE, ordered), axis=1)[:, ::-1].copy()
