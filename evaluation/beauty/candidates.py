"""What generative models recommend: the items of their beams, and how probable each of them is to whom.

One model's beam gives its items with their log-probabilities. Of several models that name the items by different ids,
the beams are put together, and every model says how probable the items of all of them are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluation.beauty.accuracy import NOWHERE, batches, seen_items
from evaluation.beauty.dataset import NONE, Beauty, Longs, Part
from evaluation.beauty.model import ItemOneRec, history_of
from inference.engine.native.check import TORCH
from inference.engine.search import Engine
from onerec.catalogue import CatalogueSnapshot

LogPrior = Callable[[Tensor], Tensor]
PACKED = {"cpu": 4_096, "cuda": 16_384}
"""Candidates whose log-probabilities are computed at once."""


BEAMS_AT_ONCE = {"cpu": 64, "cuda": 256}
"""Users whose beams are searched at once."""
USERS_AT_ONCE = 512
"""Users for whom all items are scored at once."""


@dataclass(frozen=True, slots=True)
class Member:
    """A trained model and the catalogue of its ids."""

    model: ItemOneRec
    catalogue: CatalogueSnapshot


@dataclass(frozen=True, slots=True)
class Beam:
    """Of U users: items int64 [U, W], best first, and their log-probabilities float32 [U, W]."""

    items: Longs
    log_probs: NDArray[np.float32]

    def of(self, items: Longs) -> Tensor:
        """Log-probabilities [U, W] of the same items as `once` orders them."""
        order = np.argsort(-self.items, axis=1, kind="stable")
        assert np.array_equal(np.take_along_axis(self.items, order, axis=1), items)
        return torch.from_numpy(np.take_along_axis(self.log_probs, order, axis=1))


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
def beam(member: Member, histories: Longs, width: int) -> Beam:
    """The items [U, width] of the beam for each history [U, n] with their log-probabilities, best first.

    NONE, and -inf, where there are fewer items.
    """
    device, items, log_probs = member.model.bos.device, [], []
    engine = Engine(member.model, kernels=TORCH, dtype=torch.float32)
    for at in batches(histories, BEAMS_AT_ONCE[device.type]):
        history = history_of(torch.from_numpy(histories[at]), member.catalogue.trie).to(device)
        found = engine.rank(history, member.catalogue, beam_width=width)
        items.append(found.sessions[:, :, 0].cpu().numpy())
        log_probs.append(found.log_probs.cpu().numpy())
    return Beam(np.concatenate(items), np.concatenate(log_probs))


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
    beams = [beam(member, histories, width) for member in members]
    items = once(np.concatenate([own.items for own in beams], axis=1))
    whole = seen_items(beauty, part)[rows]
    seen = np.concatenate([(items[at, :, None] == whole[at, None, :]).any(2) for at in batches(items, 512)])
    codes = beams[0].of(items) if len(members) == 1 else _code_log_probs(members, histories, items)
    return Candidates(
        torch.from_numpy(items),
        torch.from_numpy(seen & (items != NONE)),
        codes,
        _vector_log_probs(members, histories, items),
        torch.zeros(items.shape) if prior is None else _prior_log_probs(members[0], prior, histories, items),
    )


@torch.inference_mode()
def _code_log_probs(members: list[Member], histories: Longs, items: Longs) -> Tensor:
    """Means [U, C] over the members of what they generate items [U, C] with, whoever's beam has them."""
    device = members[0].model.bos.device
    tries, found = [member.catalogue.trie.to(device) for member in members], []
    for at in batches(histories, max(1, PACKED[device.type] // items.shape[1])):
        history, own = torch.from_numpy(histories[at]).to(device), torch.from_numpy(items[at]).to(device).clamp(min=0)
        total = torch.zeros(own.shape, device=device)
        for member, trie in zip(members, tries, strict=True):
            memory = member.model.encode(history_of(history, trie))
            total += member.model.next_item_log_probs(memory, own, trie)
        found.append((total / len(members)).cpu())
    return torch.cat(found)


@torch.inference_mode()
def _vector_log_probs(members: list[Member], histories: Longs, items: Longs) -> Tensor:
    """Means [U, C] over the members of items [U, C] by their vectors; 0 of members without any."""
    device, found = members[0].model.bos.device, []
    models = [(one.model, one.catalogue.trie.to(device)) for one in members if one.model.with_items]
    for at in batches(histories, USERS_AT_ONCE):
        history, own = torch.from_numpy(histories[at]).to(device), torch.from_numpy(items[at]).to(device).clamp(min=0)
        total = torch.zeros(own.shape, device=device)
        for model, trie in models:
            memory = model.encode(history_of(history, trie))
            total += torch.log_softmax(model.item_logits(memory), dim=1).gather(1, own)
        found.append((total / len(members)).cpu())
    return torch.cat(found)


def _prior_log_probs(member: Member, prior: LogPrior, histories: Longs, items: Longs) -> Tensor:
    """[U, C] of items [U, C]."""
    device, found = member.model.bos.device, []
    for at in batches(histories, USERS_AT_ONCE):
        own = torch.from_numpy(items[at]).to(device).clamp(min=0)
        found.append(prior(torch.from_numpy(histories[at]).to(device)).gather(1, own).cpu())
    return torch.cat(found)


def once(items: Longs) -> Longs:
    """Items [U, C] without repetitions; NONE stands at the end of each row."""
    ordered = np.sort(items, axis=1)[:, ::-1]
    again = np.concatenate([np.zeros((len(items), 1), bool), ordered[:, 1:] == ordered[:, :-1]], axis=1)
    return np.sort(np.where(again, NONE, ordered), axis=1)[:, ::-1].copy()
