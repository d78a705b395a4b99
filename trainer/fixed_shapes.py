"""The losses of a step's sessions in a few fixed shapes, computed without waiting for the device: for CUDA graphs.

The objectives compute what a batch's losses depend on and no more; how much that is, the host has to ask the device in
every step. Here a batch is padded to few shapes, every slot is computed, and what is not learned weighs nothing: the
same losses, experts' loads and gradients but for rounding, and the order in which dropout draws. What depends on the
catalogue, which grows all the time, is looked up before: it comes in as `Targets`.
Letters as in trainer.batches; T tokens of a session, C children of a node at most, rounded up to a power of two.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from onerec.model.attention import causal_bias, padding_bias
from onerec.model.batches import HistoryBatch
from onerec.model.likelihood import ntp_loss
from onerec.model.onerec import OneRec
from onerec.model.precision import widen
from onerec.model.presets import ModelConfig
from onerec.model.reward import RewardModel, duration_feature
from onerec.model.trie import Trie
from trainer.batches import SessionBatch
from trainer.objectives import reward_targets

FEWEST_ROWS = 8
SHORTEST_HISTORY = 64
"""Items of a padded history, at least, where the model takes so many."""


@dataclass(frozen=True, slots=True)
class Targets:
    """For B * m items, where their paths pass in a catalogue's trie; of empty slots those of the first leaf."""

    children: tuple[Tensor, ...]
    """Of each level: codes int64 [B * m, C] of the siblings among which an item's code was chosen; [1, C] at first."""
    legal: tuple[Tensor, ...]
    """Bool, likewise: where there is one."""
    rank: Tensor
    """Int64 [B * m, L]: the item's own place among them."""

    @classmethod
    def of(cls, leaves: Tensor, trie: Trie, config: ModelConfig) -> Self:
        """Of sessions `leaves` int64 [B, m], on their device, where the trie is, too."""
        nodes, rank = trie.path_targets(leaves.clamp(min=0).flatten())
        children, legal = [], []
        for level in range(trie.levels):
            found = trie.children(level, nodes[:, level] if level else nodes.new_zeros(1))
            more = min(config.codes, power_of_two(found.codes.shape[1])) - found.codes.shape[1]
            children.append(functional.pad(found.codes, (0, more)))
            legal.append(functional.pad(found.legal, (0, more)))
        return cls(tuple(children), tuple(legal), rank)


def padded(batch: SessionBatch, config: ModelConfig, most: int) -> SessionBatch:
    """With empty sessions up to a power of two of them, at most `most`; with m slots, and longer histories."""
    sessions, slots = batch.leaves.shape
    _, items, _ = batch.history.codes.shape
    rows = max(sessions, min(most, max(FEWEST_ROWS, power_of_two(sessions)))) - sessions
    slots = config.session_items - slots
    longer = max(items, min(config.history_items, max(SHORTEST_HISTORY, power_of_two(items)))) - items
    history = HistoryBatch(
        functional.pad(batch.history.codes, (0, 0, 0, longer, 0, rows)),
        functional.pad(batch.history.labels, (0, longer, 0, rows)),
        functional.pad(batch.history.mask, (0, longer, 0, rows)),
    )
    return replace(
        batch,
        history=history,
        leaves=functional.pad(batch.leaves, (0, slots, 0, rows), value=-1),
        codes=functional.pad(batch.codes, (0, 0, 0, slots, 0, rows)),
        labels=functional.pad(batch.labels, (0, slots, 0, rows)),
        weight=functional.pad(batch.weight, (0, slots, 0, rows)),
        durations_ms=functional.pad(batch.durations_ms, (0, slots, 0, rows)),
        watch_ms=functional.pad(batch.watch_ms, (0, rows)),
    )


def next_token_loss(model: OneRec, batch: SessionBatch, targets: Targets) -> Tensor:
    """`trainer.objectives.next_token_loss` of a padded batch; 0 where nothing is covered."""
    batch_size, items = batch.leaves.shape
    levels = model.config.levels
    covered = (batch.weight > 0) & batch.mask
    wanted = covered.unsqueeze(2).expand(-1, -1, levels + 1).clone()
    wanted[:, :, levels] = False  # what follows an item's last code is no choice
    hidden = _hidden(model, batch, wanted.flatten(1)).view(batch_size * items, levels, -1)
    columns = []
    for level in range(levels):
        logits = widen(model.logits(level, hidden[:, level]))
        children, legal = targets.children[level], targets.legal[level]
        among = logits.index_select(1, children[0]) if level == 0 else logits.gather(1, children)
        log_probs = torch.log_softmax(among.masked_fill(~legal, -torch.inf), dim=-1)
        columns.append(log_probs.gather(1, targets.rank[:, level : level + 1]))
    return ntp_loss(torch.cat(columns, dim=1).view(batch_size, items, levels), batch.weight)


def _hidden(model: OneRec, batch: SessionBatch, wanted: Tensor) -> Tensor:
    """Hidden states [B * m * L, d] of all positions before a code, of which `wanted` bool [B, T] enter the loads."""
    levels = model.config.levels
    memory = model.encode(batch.history)
    x = model.dropout(model.decoder_inputs(batch.codes))
    causal, padding, dtype = causal_bias(x.shape[1], x.device), padding_bias(memory.mask), memory.states.dtype
    needed = wanted.flip(1).cummax(1).values.flip(1)  # a wanted position follows, or is it
    *blocks, last = model.decoder.stack()
    for block in blocks:
        x = block.attend(x, causal, memory.states, padding)
        x = block.mix(x.flatten(0, 1), dtype, needed.flatten()).view_as(x)
    x = last.attend(x, causal, memory.states, padding)
    choices = x.view(len(x), -1, levels + 1, x.shape[2])[:, :, :levels].flatten(0, 2)
    counted = wanted.view(len(x), -1, levels + 1)[:, :, :levels].flatten()
    hidden: Tensor = model.decoder.norm(last.mix(choices, dtype, counted))
    return hidden


def reward_loss(model: RewardModel, batch: SessionBatch) -> Tensor:
    """`trainer.objectives.session_reward_loss` of a padded batch."""
    logits = model(batch.history, batch.codes, duration_feature(batch.durations_ms), batch.mask)
    there = batch.mask.any(1).to(batch.weight.dtype)
    each = [
        functional.binary_cross_entropy_with_logits(x, y, reduction="none")
        for x, y in zip(logits, reward_targets(batch), strict=True)
    ]
    total: Tensor = (torch.stack(each).sum(0) * there).sum() / there.sum().clamp(min=1.0)
    return total


def power_of_two(number: int) -> int:
    """The least one that is not below."""
    return 1 << (number - 1).bit_length()
