"""Log-probabilities of sessions under the model, normalised over what the catalogue holds."""

from __future__ import annotations

import torch
from torch import Tensor

from onerec.model.onerec import Memory, OneRec
from onerec.model.precision import widen
from onerec.model.trie import Trie


def token_log_probs(model: OneRec, memory: Memory, leaves: Tensor, trie: Trie, wanted: Tensor | None = None) -> Tensor:
    """Teacher-forced log-probabilities float32 [B, m, L] of sessions `leaves` int64 [B, m] (leaves of the trie).

    At each level the softmax runs over the legal children of the prefix only (mask, then softmax), so the
    probabilities of all items of the catalogue sum to one at every slot. A leaf of -1 is an empty slot. Items
    where `wanted` bool [B, m] is False still stand in the decoder's input but their log-probabilities are not
    computed; these and those of empty slots are 0.
    """
    wanted = (leaves >= 0) if wanted is None else wanted & (leaves >= 0)
    (batch, items), levels = leaves.shape, trie.levels
    columns = [every.gather(1, own[:, None]) for every, own in code_log_probs(model, memory, leaves, trie, wanted)]
    where = wanted.flatten().nonzero().squeeze(1)
    chosen = torch.cat(columns, dim=1)
    return chosen.new_zeros(batch * items, levels).index_copy(0, where, chosen).view(batch, items, levels)


def code_log_probs(
    model: OneRec, memory: Memory, leaves: Tensor, trie: Trie, wanted: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """By level, for the R items of sessions `leaves` [B, m] where `wanted` [B, m]: all codes, and the item's own.

    The former are log-probabilities float32 [R, C] of the legal children, -inf where a node has fewer than C; the
    latter is the place int64 [R] of the item's code among them.
    """
    codes = trie.codes_of(leaves.clamp(min=0))
    _, _, levels = codes.shape
    positions = wanted.unsqueeze(2).expand(-1, -1, levels + 1).clone()
    positions[:, :, levels] = False  # what follows an item's last code is no choice
    rows = model.decode_rows(model.decoder_inputs(codes), memory, positions.flatten(1))
    hidden = rows.view(-1, levels, rows.shape[-1])  # by wanted item
    nodes, rank = trie.path_targets(leaves[wanted])
    found = []
    for level in range(levels):
        logits = widen(model.logits(level, hidden[:, level]))
        found.append((legal_log_softmax(logits, trie, level, nodes[:, level]), rank[:, level]))
    return found


def legal_log_softmax(logits: Tensor, trie: Trie, level: int, nodes: Tensor) -> Tensor:
    """Log-softmax [R, C] over the legal children of `nodes` int64 [R] from logits [R, K]; -inf is padding."""
    if level == 0:  # one root: no gather of a row of children for each row of logits
        root = trie.children(0, nodes.new_zeros(1))
        return torch.log_softmax(logits.index_select(1, root.codes[0]), dim=-1)
    children = trie.children(level, nodes)
    return torch.log_softmax(logits.gather(1, children.codes).masked_fill(~children.legal, -torch.inf), dim=-1)


def ntp_loss(log_probs: Tensor, weight: Tensor) -> Tensor:
    """Next-token loss (paper, equation 4) as the mean per token: log_probs [B, m, L], weight [B, m] of the items.

    Zero where no item has weight.
    """
    tokens = (weight.sum() * log_probs.shape[-1]).clamp(min=1e-8)
    return -(log_probs * weight.unsqueeze(-1)).sum() / tokens
