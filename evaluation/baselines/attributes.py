"""What is known of items without looking at who watched them: author, tags, length, as rows of embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from stream.replay.log import Items

LENGTHS = 16
"""Buckets of log-duration."""
TAGS = 3
"""Tags of an item that count."""


@dataclass(frozen=True, slots=True)
class ItemAttributes:
    """int64 [N, F] for N items: author, length and tags as values below `values`; value 0 is none."""

    table: Tensor
    values: int

    @classmethod
    def of(cls, items: Items) -> ItemAttributes:
        """Number all values of all items."""
        numbers: dict[tuple[str, object], int] = {}

        def number(kind: str, value: object) -> int:
            return numbers.setdefault((kind, value), len(numbers) + 1)

        lengths = np.clip(2 * np.log2(1 + items.durations_ms / 1000), 0, LENGTHS - 1).astype(int)
        rows = []
        columns = zip(items.author_ids.tolist(), lengths.tolist(), items.tags, strict=True)
        for author, length, tags in columns:
            known = [number("tag", tag) for tag in tags[:TAGS]]
            rows.append([number("author", author), number("length", length), *known, *[0] * (TAGS - len(known))])
        return cls(torch.tensor(rows, dtype=torch.int64).reshape(len(rows), 2 + TAGS), len(numbers) + 1)


class AttributeEmbedding(nn.Module):
    """The attributes of every item, weighed by an attention of their own (FDSA, section 3.2)."""

    attributes: Tensor

    def __init__(self, attributes: ItemAttributes, width: int) -> None:
        super().__init__()
        self.value = nn.Embedding(attributes.values, width, padding_idx=0)
        self.weight = nn.Linear(width, 1)
        nn.init.normal_(self.value.weight[1:], std=0.02)
        self.register_buffer("attributes", attributes.table)

    def forward(self) -> Tensor:
        """[N, d] for all items."""
        vectors = self.value(self.attributes)  # [N, F, d]
        weights = self.weight(vectors).masked_fill((self.attributes == 0).unsqueeze(-1), -torch.inf)
        mixed: Tensor = (torch.softmax(weights, dim=1) * vectors).sum(1)
        return mixed
