"""Log-probabilities of sessions under the model, normalised over what the catalogue holds."""

from __future__ import annotations

import torch
from torch import Tensor

from onerec.model.onerec import Memory, OneRec
from onerec.model.trie import Trie


def token_log_probs(model: OneRec, memory: Memory, leaves: Tensor, trie: Trie) -> Tensor:
    """Teacher-forced log-probabilities float32 [B, m, L] of sessions `leaves` int64 [B, m] (leaves of the trie).

    At each level the softmax runs over the legal children of the prefix only (mask, then softmax), so the
    probabilities of all items of the catalogue sum to one at every slot. A leaf of -1 is an empty slot: its
    log-probabilities are 0.
    """
    empty = leaves < 0
    leaves = leaves.clamp(min=0)
    codes = trie.codes[leaves]
    batch, items, levels = codes.shape
    hidden = model.decode(model.decoder_inputs(codes), memory).view(batch * items, levels + 1, -1)
    nodes, rank = (t.view(batch * items, levels) for t in trie.path_targets(leaves))
    columns = []
    for level in range(levels):
        logits = model.logits(level, hidden[:, level]).float()
        columns.append(legal_log_softmax(logits, trie, level, nodes[:, level]).gather(1, rank[:, level, None]))
    log_probs = torch.cat(columns, dim=1).view(batch, items, levels)
    return log_probs.masked_fill(empty.unsqueeze(-1), 0.0)


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
