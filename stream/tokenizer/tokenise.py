"""Items to their tokens: which semantic id an item has, and whether that is news. Knows nothing of Kafka."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.reasons import Reason
from schemas.records import Item, ItemTokens
from stream.tokenizer.codebook import Codebook
from stream.tokenizer.semantic_ids import CatalogueFullError, SemanticId, SemanticIds

Values = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an item has no tokens."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Tokenised:
    """Tokens of an item. news: not on the topic like this; new: its first; moved: the id it wanted was taken."""

    tokens: ItemTokens
    news: bool
    new: bool
    moved: bool


def values_of(item: Item, width: int) -> Values | Refusal:
    """The embedding of an item, [width], or what is wrong with the item."""
    if item.duration_ms < 0:
        return Refusal(Reason.OUT_OF_BOUNDS, f"item {item.item_id} has duration_ms {item.duration_ms}")
    if len(item.embedding) != 4 * width:
        return Refusal(
            Reason.WRONG_WIDTH,
            f"item {item.item_id} has an embedding of {len(item.embedding)} bytes, not {width} float32",
        )
    values = np.frombuffer(item.embedding, "<f4")
    if not np.isfinite(values).all():
        return Refusal(Reason.NON_FINITE, f"item {item.item_id} has an embedding with NaN or infinity")
    return values


class Tokenizer:
    """The semantic ids of all items of one codebook version.

    A known item keeps its id, whatever its embedding becomes; an item that the codebook was fitted on has the id
    that is stored there; another one gets the nearest that is free. So what an item gets depends on the order in
    which new items come and on nothing else, and what topic item-tokens holds is the whole state: `restore`.
    """

    def __init__(self, codebook: Codebook) -> None:
        self.codebook = codebook
        self._ids = SemanticIds(codebook.centroids)
        self._id_of: dict[int, SemanticId] = {}
        self._published: dict[int, int] = {}  # of an item: hash of the tokens that the topic holds
        for item_id, codes in codebook.stored().items():
            self._ids.claim(item_id, codes)
            self._id_of[item_id] = codes

    @property
    def published(self) -> int:
        """Items whose tokens are on the topic."""
        return len(self._published)

    def restore(self, tokens: ItemTokens) -> Refusal | None:
        """Take what the topic holds, record by record; says why a record is not taken."""
        if tokens.codebook_version != self.codebook.version:
            return Refusal(Reason.STALE_CODEBOOK, f"item {tokens.item_id} has codebook {tokens.codebook_version}")
        legal = len(tokens.codes) == self.codebook.levels and all(0 <= c < self.codebook.size for c in tokens.codes)
        known = self._id_of.get(tokens.item_id, tokens.codes)
        if not legal or known != tokens.codes or not self._ids.claim(tokens.item_id, tokens.codes):
            return Refusal(Reason.DUPLICATE_CODES, f"item {tokens.item_id} cannot have {tokens.codes}")
        self._id_of[tokens.item_id] = tokens.codes
        self._published[tokens.item_id] = hash(tokens)
        return None

    def tokenise(self, items: Sequence[Item]) -> list[Tokenised | Refusal]:
        """For each item its tokens or why it has none; new items take their ids in the order given."""
        checked = [values_of(item, self.codebook.width) for item in items]
        wanted = self._wanted(items, checked)
        return [
            values if isinstance(values, Refusal) else self._one(item, values, wanted.get(row))
            for row, (item, values) in enumerate(zip(items, checked, strict=True))
        ]

    def mark_published(self, tokens: ItemTokens) -> None:
        """These tokens are on the topic now: the same ones are no news."""
        self._published[tokens.item_id] = hash(tokens)

    def _wanted(self, items: Sequence[Item], checked: Sequence[Values | Refusal]) -> dict[int, SemanticId]:
        """By row the argmin codes of the items without an id, in one matrix product a level."""
        rows = [row for row, values in enumerate(checked) if isinstance(values, np.ndarray)]
        rows = [row for row in rows if items[row].item_id not in self._id_of]
        if not rows:
            return {}
        codes = self.codebook.assign(np.stack([np.asarray(checked[row]) for row in rows]))
        return {row: tuple(wanted) for row, wanted in zip(rows, codes.tolist(), strict=True)}

    def _one(self, item: Item, values: Values, wanted: SemanticId | None) -> Tokenised | Refusal:
        codes = self._id_of.get(item.item_id)
        moved = False
        if codes is None:
            assert wanted is not None  # items without an id were quantised
            try:
                codes = self._ids.place(item.item_id, values, wanted)
            except CatalogueFullError as error:
                return Refusal(Reason.PROCESSING_FAILED, f"item {item.item_id} gets no semantic id: {error}")
            self._id_of[item.item_id] = codes
            moved = codes != wanted
        tokens = ItemTokens(
            item_id=item.item_id,
            codes=codes,
            codebook_version=self.codebook.version,
            duration_ms=item.duration_ms,
            tags=item.tags,
            created_ms=item.created_ms,
        )
        before = self._published.get(item.item_id)
        return Tokenised(tokens, news=before != hash(tokens), new=before is None, moved=moved)
