"""Figure 5: how sure the model is at each level of a semantic id, before and after IPA, and of which item.

For each case the item of highest reward is the first one of the user's best candidate before IPA, by the training
reward model. At each level the model's probabilities are those of the codes that may follow the codes of that item so
far. The model that took IPA's steps without pairs stands beside: what it does is not IPA's doing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluation.table1.generative import recommend_sessions
from evaluation.table1.judge import predicted
from evaluation.table1.kept import Context, onerec_of, reward_of
from evaluation.table1.preference import RECIPES, Aligner
from inference.sampler.pairs import merged
from onerec.features import history_batch
from onerec.model.likelihood import code_log_probs
from onerec.model.onerec import OneRec
from onerec.model.reward import OBJECTIVES, Rewards
from onerec.settings import RewardWeights

MODELS = ("before", "ntp", "ipa")
CHUNK = 128
SHOWN = 20
"""Codes of a level that the figure shows."""


def confidence(at: Context) -> dict[str, Any]:
    """By model and level: mean entropy, mean probability of the marked item's code, how often it is the likeliest.

    `example` holds the probabilities of one user, whose marked item gained the median by IPA: nobody chose it.
    """
    model, reward = onerec_of(at), reward_of(at)
    aligner = Aligner(model, reward, at.world, at.form, at.seed)
    users, marked = _marked(model, at)
    models = {"before": model, "ntp": aligner.aligned(RECIPES["ntp"]), "ipa": aligner.aligned(RECIPES["ipa"])}
    levels = {name: _levels(own, at, users, marked) for name, own in models.items()}
    first, last = (torch.stack([own for _, own, _ in levels[name]]).sum(0) for name in ("before", "ipa"))
    gain = last - first
    row = int(torch.argsort(gain)[len(gain) // 2])
    return {
        "cases": len(users),
        "levels": {name: [_figures(*level) for level in own] for name, own in levels.items()},
        "example": _example(levels, row),
    }


def _marked(model: OneRec, at: Context) -> tuple[list[int], Tensor]:
    """Users (rows) whose candidates are whole, and the leaf [C] of the item of highest reward of each."""
    sessions = recommend_sessions(model, at.world, at.form).sessions
    by_objective = predicted(reward_of(at), at.world, at.world.rows.catalogue, at.config, sessions)
    users, leaves = [], []
    for case, user in enumerate(at.world.cases.users.tolist()):
        if (sessions[case] >= 0).all():
            own = Rewards(*(torch.from_numpy(by_objective[name][case]) for name in OBJECTIVES))
            users.append(user)
            leaves.append(int(sessions[case, int(merged(own, RewardWeights()).argmax()), 0]))
    return users, torch.tensor(leaves)


@torch.inference_mode()
def _levels(model: OneRec, at: Context, users: list[int], marked: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """By level: all log-probabilities [C, K] (-inf: not legal), that of the marked code [C], and its place [C]."""
    side, parts = at.world.rows, list[list[tuple[Tensor, Tensor]]]()
    trie = side.catalogue.trie.to(at.device)
    for first in range(0, len(users), CHUNK):
        own = users[first : first + CHUNK]
        history = history_batch([side.history(user) for user in own], side.catalogue, model.config)
        leaves = marked[first : first + CHUNK, None].to(at.device)
        whole = torch.ones_like(leaves, dtype=torch.bool)
        memory = model.eval().encode(history.to(at.device))
        parts.append([(every.cpu(), own.cpu()) for every, own in code_log_probs(model, memory, leaves, trie, whole)])
    found = []
    for level in zip(*parts, strict=True):
        every, place = (torch.cat(column) for column in zip(*level, strict=True))
        found.append((every, every.gather(1, place[:, None]).squeeze(1), place))
    return found


def entropy(log_probs: Tensor) -> Tensor:
    """In nats [R] of log-probabilities [R, K]; -inf is no choice."""
    return -(log_probs.exp() * log_probs.clamp(min=-1e9)).sum(1)


def _figures(every: Tensor, own: Tensor, place: Tensor) -> dict[str, float]:
    return {
        "entropy": float(entropy(every).mean()),
        "marked_probability": float(own.exp().mean()),
        "marked_first": float((every.argmax(1) == place).float().mean()),
        "choices": float(torch.isfinite(every).sum(1).double().mean()),
    }


def _example(levels: dict[str, list[tuple[Tensor, Tensor, Tensor]]], row: int) -> dict[str, Any]:
    """By level the codes that are likeliest before IPA and the marked one, with their probabilities by each model."""
    found = []
    for level, (every, _, place) in enumerate(levels["before"]):
        order = torch.argsort(every[row], descending=True, stable=True)
        order = order[torch.isfinite(every[row][order])][:SHOWN]
        marked = int(place[row])
        if marked not in order.tolist():
            order[-1] = marked
        probabilities = {name: own[level][0][row][order].exp().tolist() for name, own in levels.items()}
        found.append({"marked": int(np.flatnonzero(order.numpy() == marked)[0]), "probabilities": probabilities})
    return {"levels": found}
