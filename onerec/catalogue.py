"""The catalogue of a reader: semantic ids of all items as topic item-tokens tells them, and the trie over them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from onerec.model.trie import Trie
from schemas.reasons import Reason
from schemas.records import ItemTokens

INITIAL_ROWS = 1024


class Refusal(NamedTuple):
    """Why a record was not taken."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class CatalogueSnapshot:
    """The catalogue at one offset of item-tokens; leaf i of the trie is row i of every array.

    Rows keep their place from snapshot to snapshot: new items are appended.
    """

    trie: Trie
    item_ids: NDArray[np.int64]  # [N]
    codes: NDArray[np.int64]  # [N, L]
    durations_ms: NDArray[np.int64]  # [N]
    tags: tuple[tuple[str, ...], ...]
    offset: int
    codebook_version: int
    _sorted_ids: NDArray[np.int64] = field(repr=False)
    _sorted_leaves: NDArray[np.int64] = field(repr=False)

    def __len__(self) -> int:
        return len(self.item_ids)

    def leaves(self, item_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Leaves of items, -1 where the catalogue lacks one; any shape."""
        at = np.searchsorted(self._sorted_ids, item_ids)
        np.minimum(at, len(self._sorted_ids) - 1, out=at)
        return np.where(self._sorted_ids[at] == item_ids, self._sorted_leaves[at], -1)


class Catalogue:
    """Fed by ItemTokens records in the order of the topic; gives snapshots. Not thread-safe."""

    def __init__(self, levels: int, codes: int, codebook_version: int | None = None) -> None:
        """`codes` is K. Without a codebook version the first record's is adopted."""
        self.levels, self.code_count = levels, codes
        self.codebook_version = codebook_version
        self.offset = 0
        self._rows: dict[int, int] = {}
        self._owner: dict[tuple[int, ...], int] = {}  # item of a semantic id
        self._tags: list[tuple[str, ...]] = []
        self._ids = np.empty(INITIAL_ROWS, np.int64)
        self._codes = np.empty((INITIAL_ROWS, levels), np.int64)
        self._durations = np.empty(INITIAL_ROWS, np.int64)
        self._snapshot: CatalogueSnapshot | None = None
        self._stale = True
        self._built_at = 0.0

    def __len__(self) -> int:
        return len(self._rows)

    def apply(self, tokens: ItemTokens, next_offset: int) -> Refusal | None:
        """Take one record; `next_offset` is the offset after it. A record that is refused changes nothing but that."""
        self.offset = next_offset
        refusal = self._check(tokens)
        if refusal is not None:
            return refusal
        self.codebook_version = tokens.codebook_version
        row = self._rows.get(tokens.item_id)
        if row is None:
            row = len(self._rows)
            if row == len(self._ids):
                self._grow()
            self._rows[tokens.item_id] = row
            self._tags.append(tokens.tags)
        else:
            del self._owner[tuple(self._codes[row].tolist())]
            self._tags[row] = tokens.tags
        self._owner[tokens.codes] = tokens.item_id
        self._ids[row], self._codes[row], self._durations[row] = tokens.item_id, tokens.codes, tokens.duration_ms
        self._stale = True
        return None

    def snapshot(self, max_age_s: float = 0.0) -> CatalogueSnapshot:
        """The catalogue as of now, or one built at most `max_age_s` of wall time ago. Raises ValueError when empty."""
        current = self._snapshot
        fresh_enough = time.monotonic() - self._built_at < max_age_s
        if current is None or (self._stale and not fresh_enough):
            current = self._build()
        return current

    def _check(self, tokens: ItemTokens) -> Refusal | None:
        if self.codebook_version is not None and tokens.codebook_version != self.codebook_version:
            return Refusal(
                Reason.STALE_CODEBOOK,
                f"item {tokens.item_id} has codes of codebook {tokens.codebook_version}, "
                f"the catalogue is of {self.codebook_version}",
            )
        if len(tokens.codes) != self.levels:
            return Refusal(
                Reason.OUT_OF_BOUNDS, f"item {tokens.item_id} has {len(tokens.codes)} codes, not {self.levels}"
            )
        if min(tokens.codes) < 0 or max(tokens.codes) >= self.code_count:
            return Refusal(
                Reason.OUT_OF_BOUNDS,
                f"item {tokens.item_id} has a code outside 0..{self.code_count - 1}: {tokens.codes}",
            )
        owner = self._owner.get(tokens.codes)
        if owner is not None and owner != tokens.item_id:
            return Refusal(Reason.DUPLICATE_CODES, f"items {owner} and {tokens.item_id} share the codes {tokens.codes}")
        return None

    def _grow(self) -> None:
        self._ids = np.concatenate([self._ids, np.empty_like(self._ids)])
        self._codes = np.concatenate([self._codes, np.empty_like(self._codes)])
        self._durations = np.concatenate([self._durations, np.empty_like(self._durations)])

    def _build(self) -> CatalogueSnapshot:
        count = len(self._rows)
        ids, codes = self._ids[:count].copy(), self._codes[:count].copy()
        order = np.argsort(ids, kind="stable")
        self._snapshot = CatalogueSnapshot(
            trie=Trie.build(torch.from_numpy(codes), self.code_count),
            item_ids=ids,
            codes=codes,
            durations_ms=self._durations[:count].copy(),
            tags=tuple(self._tags),
            offset=self.offset,
            codebook_version=self.codebook_version or 0,
            _sorted_ids=ids[order],
            _sorted_leaves=order,
        )
        self._stale = False
        self._built_at = time.monotonic()
        return self._snapshot
