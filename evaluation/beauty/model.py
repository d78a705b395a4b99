"""OneRec with a vector for each item beside its codes: in the encoder's input, and as a second target.

The codes of an item are shared with other items, which is what lets a small model learn from few reviews, and also
what blurs items that differ. Item vectors (content, turned by a matrix, and a row of the item's own) go into the
encoder where the codes go, and the user's state is trained to be near the next item's vector, over all items. That
second loss teaches the encoder; at recommendation it is used only by the rows that say so.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from onerec.model.attention import causal_bias, padding_bias
from onerec.model.batches import HistoryBatch
from onerec.model.likelihood import legal_log_softmax
from onerec.model.moe import SparseMoE
from onerec.model.norm import RMSNorm
from onerec.model.onerec import INITIAL_STD, Memory, OneRec
from onerec.model.precision import Linear, widen
from onerec.model.presets import ModelConfig
from onerec.model.swiglu import swiglu
from onerec.model.trie import Trie


@dataclass(frozen=True, slots=True)
class ItemHistoryBatch(HistoryBatch):
    """Histories with the items themselves: `leaves` int64 [B, n], -1 where there is none."""

    leaves: Tensor

    def to(self, device: torch.device | str) -> ItemHistoryBatch:
        """Copy to a device."""
        moved = (one.to(device) for one in (self.codes, self.labels, self.mask, self.leaves))
        return ItemHistoryBatch(*moved)


def history_of(leaves: Tensor, trie: Trie) -> ItemHistoryBatch:
    """Histories `leaves` [B, n] of any integers, padded with -1 on the right. Labels say nothing here."""
    items = leaves.long()
    codes = trie.codes_of(items.clamp(min=0))
    return ItemHistoryBatch(codes, torch.zeros_like(items), items >= 0, items)


class ItemOneRec(OneRec):
    """`content` [N, f] are fixed embeddings of the items; without it this is OneRec alone.

    `forget` is the share of history items that are left out, anew in each step of training.
    """

    content: Tensor | None

    def __init__(self, config: ModelConfig, content: Tensor | None, forget: float = 0.0) -> None:
        super().__init__(config)
        self.forget = forget
        self.register_buffer("content", content, persistent=False)
        if content is None:
            return
        width = config.d_model
        self.item_own = nn.Embedding(len(content), width)
        self.item_content = Linear(content.shape[1], width)
        self.user = Linear(2 * width, width)
        self.user_norm = RMSNorm(width)
        nn.init.normal_(self.item_own.weight, std=INITIAL_STD / 4)
        nn.init.normal_(self.item_content.weight, std=2 * INITIAL_STD)
        nn.init.normal_(self.user.weight, std=width**-0.5)

    @property
    def with_items(self) -> bool:
        """Whether items have vectors."""
        return self.content is not None

    def item_vectors(self) -> Tensor:
        """[N, d] of all items."""
        assert self.content is not None
        vectors: Tensor = self.item_content(self.content) + self.item_own.weight
        return vectors

    def encoder_inputs(self, history: HistoryBatch) -> tuple[Tensor, Tensor]:
        """As OneRec's, with the items' vectors added to their codes'; in training some items say nothing."""
        tokens, mask = super().encoder_inputs(history)
        leaves = history.leaves if isinstance(history, ItemHistoryBatch) else None
        if self.with_items and leaves is not None:
            vectors = functional.embedding(leaves.clamp(min=0), self.item_vectors())
            if self.config.history_tokens == "codes":
                vectors = vectors.repeat_interleave(self.config.levels, dim=1)
            tokens = tokens + functional.pad(self.dropout(vectors), (0, 0, 1, 0))
        if self.training and self.forget > 0:
            keep = (torch.rand(tokens.shape[:2], device=tokens.device) >= self.forget).to(tokens.dtype)
            keep[:, 0] = 1  # the start token
            tokens = tokens * keep.unsqueeze(2)
        return tokens, mask

    def item_logits(self, memory: Memory, order: Tensor | None = None) -> Tensor:
        """Float32 [B, N]: every item as the next one, by its vector alone; products as in the encoder.

        With `order` int64 [N] the items stand as it names them.
        """
        states = widen(memory.states)
        newest = memory.mask.sum(1) - 1
        rows = torch.arange(len(newest), device=newest.device)
        both = torch.cat([states[:, 0], states[rows, newest]], dim=1)
        user = self.dropout(self.user_norm(self.user(both)))
        dtype, vectors = memory.states.dtype, self.item_vectors()
        if order is not None:
            vectors = vectors[order]
        return widen(user.to(dtype) @ vectors.to(dtype).t())

    def code_log_probs(self, memory: Memory, leaves: Tensor, trie: Trie) -> list[tuple[Tensor, Tensor]]:
        """By level, for A alternatives `leaves` [B, A] for each user's next item: all codes, and the item's own.

        The former are log-probabilities [B * A, C] of the legal codes, the latter their places [B * A]: what
        onerec.model.likelihood.code_log_probs gives for sessions of one item. But the alternatives share the user's
        memory, and nothing waits for the device: all experts run on all positions, those not chosen have weight 0.
        """
        hidden = self._next_item_states(trie.codes_of(leaves), memory)
        nodes, ranks = trie.path_targets(leaves.flatten())
        found = []
        for level in range(trie.levels):
            logits = widen(self.logits(level, hidden[:, level]))
            found.append((legal_log_softmax(logits, trie, level, nodes[:, level]), ranks[:, level]))
        return found

    def next_item_log_probs(self, memory: Memory, leaves: Tensor, trie: Trie) -> Tensor:
        """Log-probabilities float32 [B, A] of alternatives `leaves` [B, A] for each user's next item."""
        found = self.code_log_probs(memory, leaves, trie)
        own = [every.gather(1, place.unsqueeze(1)) for every, place in found]
        return torch.cat(own, dim=1).sum(1).view(leaves.shape)

    def _next_item_states(self, codes: Tensor, memory: Memory) -> Tensor:
        """Hidden states [B * A, L, d] before each code of the alternatives `codes` [B, A, L]."""
        batch, count, levels = codes.shape
        dtype = memory.states.dtype
        inputs = self.decoder_inputs(codes.view(-1, 1, levels))[:, :levels]
        x = self.dropout(inputs.reshape(batch, count * levels, -1))
        causal, padding = _causal_alone(count, levels, x.device), padding_bias(memory.mask)
        for block in self.decoder.stack():
            x = block.attend(x, causal, memory.states, padding)
            mixed = all_experts(block.moe, block.moe_norm(x, dtype).flatten(0, 1))
            x = x + block.dropout(mixed.view(x.shape).to(x.dtype))
        states: Tensor = self.decoder.norm(x, dtype).view(batch * count, levels, -1)
        return states


def _causal_alone(count: int, levels: int, device: torch.device) -> Tensor:
    """Bias [A * L, A * L] by which each of A alternatives sees its own earlier codes alone."""
    causal = causal_bias(levels, device)
    if count == 1:
        return causal
    whole = torch.full((count, levels, count, levels), -torch.inf, device=device)
    at = torch.arange(count, device=device)
    whole[at, :, at] = causal
    return whole.view(count * levels, count * levels)


def all_experts(moe: SparseMoE, x: Tensor) -> Tensor:
    """What `moe` gives for rows x [R, d], computed by all its experts; the load is counted as there."""
    gates, chosen = moe.route(x)
    weights = torch.zeros(len(x), moe.experts, device=x.device, dtype=gates.dtype).scatter(1, chosen, gates)
    moe.load = (weights > 0).sum(0)
    w_in = moe.w_in.to(x.dtype).permute(1, 0, 2).flatten(1)  # [d, E * 2h]: one product for all, and one below
    hidden = swiglu((x @ w_in).view(len(x), moe.experts, -1)) * weights.to(x.dtype).unsqueeze(2)
    return widen(hidden.flatten(1) @ moe.w_out.to(x.dtype).flatten(0, 1))


def code_loss(found: list[tuple[Tensor, Tensor]], smoothing: float) -> Tensor:
    """Negative log-probability of an item, mean over items; `smoothing` of each code's target goes to its siblings."""
    total = torch.zeros((), device=found[0][0].device)
    for every, place in found:
        own = every.gather(1, place.unsqueeze(1)).squeeze(1)
        legal = torch.isfinite(every)
        others = torch.where(legal, every, 0.0).sum(1) / legal.sum(1)
        total = total - ((1 - smoothing) * own + smoothing * others).mean()
    return total


def item_loss(logits: Tensor, leaves: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy over all items."""
    return functional.cross_entropy(logits, leaves, label_smoothing=smoothing)
