"""Embeddings of a log's items, from its histories and the items' attributes."""

from __future__ import annotations

from dataclasses import dataclass

from stream.replay.log import Floats, Histories, Longs


@dataclass(frozen=True, slots=True)
class Attributes:
    """What is known of items besides who saw them, one entry an item."""

    tags: tuple[tuple[str, ...], ...]
    authors: Longs
    durations_ms: Longs
    music: Longs | None = None


def embed(item_ids: Longs, histories: Histories, attributes: Attributes) -> Floats:
    """[N, d] embeddings of the items, in the order of `item_ids`."""
    raise NotImplementedError("stream.tokenizer.embeddings", item_ids.shape, len(histories), attributes.tags[:0])
