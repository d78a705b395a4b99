"""The catalogue of a reader: semantic ids of all items as topic item-tokens tells them, and the trie over them.

Columns are in the narrowest integers that hold them, and sets of tags, of which there are few, are kept once: some 35
bytes an item in a snapshot and as many in what it is made from, besides the trie.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray

from onerec.model.narrow import narrow_dtype, narrowed
from onerec.model.trie import Trie
from schemas.reasons import Reason
from schemas.records import ItemTokens

INITIAL_ROWS = 1024
SETTLED = 65_536
"""So many new items, or a quarter of the others, are looked up in dicts; a snapshot holds the rest."""
Tags = tuple[str, ...]
Longs = NDArray[np.int64]
Integers = NDArray[Any]  # of any width


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
    item_ids: Longs  # [N]
    durations_ms: Integers  # [N]
    tag_sets: tuple[Tags, ...]  # distinct
    tags: Integers  # [N]: which of tag_sets
    offset: int
    codebook_version: int
    _sorted_ids: Longs
    _sorted_leaves: Integers

    @classmethod
    def of(
        cls,
        item_ids: Longs,
        codes: Integers,
        durations_ms: Integers,
        tags: tuple[Sequence[Tags], Integers],
        *,
        code_count: int,
        offset: int,
        codebook_version: int,
    ) -> Self:
        """From columns: `item_ids` [N], `codes` [N, L], `durations_ms` [N], distinct sets of tags and which [N].

        `code_count` is K. They are kept where they are narrow enough. Raises ValueError as `Trie.build` does.
        """
        order = np.argsort(item_ids, kind="stable")
        sets, which = tags
        return cls(
            trie=Trie.build(torch.from_numpy(codes), code_count),
            item_ids=item_ids,
            durations_ms=durations_ms,
            tag_sets=tuple(sets),
            tags=_narrow(which, len(sets)),
            offset=offset,
            codebook_version=codebook_version,
            _sorted_ids=item_ids[order],
            _sorted_leaves=_narrow(order, len(order)),
        )

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def codes(self) -> Integers:
        """[N, L], the trie's own."""
        return self.trie.codes.numpy()

    def codes_of(self, leaves: Longs) -> Longs:
        """Codes [..., L] of leaves [...]."""
        return self.codes[leaves].astype(np.int64)

    def durations_of(self, leaves: Longs) -> Longs:
        """Durations in ms of leaves; any shape."""
        return self.durations_ms[leaves].astype(np.int64)

    def leaves(self, item_ids: Longs) -> Longs:
        """Leaves of items, -1 where the catalogue lacks one; any shape."""
        at = np.searchsorted(self._sorted_ids, item_ids)
        np.minimum(at, len(self._sorted_ids) - 1, out=at)
        return np.where(self._sorted_ids[at] == item_ids, self._sorted_leaves[at], -1).astype(np.int64)

    def tagged(self, tag: str) -> NDArray[np.bool_]:
        """Bool [N]: items that carry a tag."""
        carries = np.fromiter((tag in own for own in self.tag_sets), np.bool_, len(self.tag_sets))
        return carries[self.tags]


class Catalogue:
    """Fed by ItemTokens records in the order of the topic; gives snapshots. Not thread-safe."""

    def __init__(self, levels: int, codes: int, codebook_version: int | None = None) -> None:
        """`codes` is K. Without a codebook version the first record's is adopted."""
        self.levels, self.code_count = levels, codes
        self.codebook_version = codebook_version
        self.offset = 0
        self._count = 0
        self._new_rows: dict[int, int] = {}  # by item: what the last snapshot lacks
        self._new_owners: dict[tuple[int, ...], int] = {}  # by semantic id: rows that have got it since
        self._tag_sets: dict[Tags, int] = {}
        self._ids = np.empty(INITIAL_ROWS, np.int64)
        self._codes = np.empty((INITIAL_ROWS, levels), as_numpy(narrow_dtype(codes - 1)))
        self._durations: Integers = np.empty(INITIAL_ROWS, np.int32)
        self._tags = np.empty(INITIAL_ROWS, np.int32)
        self._snapshot: CatalogueSnapshot | None = None
        self._stale = True
        self._built_at = 0.0

    def __len__(self) -> int:
        return self._count

    def apply(self, tokens: ItemTokens, next_offset: int) -> Refusal | None:
        """Take one record; `next_offset` is the offset after it. A record that is refused changes nothing but that."""
        self.offset = next_offset
        row = self._row(tokens.item_id)
        refusal = self._check(tokens, row)
        if refusal is not None:
            return refusal
        self.codebook_version = tokens.codebook_version
        if row is None:
            row = self._new_rows[tokens.item_id] = self._count
            if row == len(self._ids):
                self._grow()
            self._count += 1
        else:
            self._new_owners.pop(tuple(self._codes[row].tolist()), None)
        if tokens.duration_ms > np.iinfo(self._durations.dtype).max:
            self._durations = self._durations.astype(np.int64)
        self._new_owners[tokens.codes] = row
        self._ids[row], self._codes[row], self._durations[row] = tokens.item_id, tokens.codes, tokens.duration_ms
        self._tags[row] = self._tag_sets.setdefault(tokens.tags, len(self._tag_sets))
        self._stale = True
        if len(self._new_owners) > max(SETTLED, self._count // 4):
            self._build()
        return None

    def snapshot(self, max_age_s: float = 0.0) -> CatalogueSnapshot:
        """The catalogue as of now, or one built at most `max_age_s` of wall time ago. Raises ValueError when empty."""
        current = self._snapshot
        fresh_enough = time.monotonic() - self._built_at < max_age_s
        if current is None or (self._stale and not fresh_enough):
            current = self._build()
        return current

    def _row(self, item_id: int) -> int | None:
        row = self._new_rows.get(item_id)
        if row is None and self._snapshot is not None:
            leaf = int(self._snapshot.leaves(np.array([item_id]))[0])
            row = leaf if leaf >= 0 else None
        return row

    def _owner(self, codes: tuple[int, ...]) -> int | None:
        """The row that has these codes now."""
        row = self._new_owners.get(codes)
        if row is None and self._snapshot is not None:
            leaf = self._snapshot.trie.leaf(codes)
            row = leaf if leaf >= 0 and tuple(self._codes[leaf].tolist()) == codes else None
        return row

    def _check(self, tokens: ItemTokens, row: int | None) -> Refusal | None:
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
        owner = self._owner(tokens.codes)
        if owner is not None and owner != row:
            detail = f"items {self._ids[owner]} and {tokens.item_id} share the codes {tokens.codes}"
            return Refusal(Reason.DUPLICATE_CODES, detail)
        return None

    def _grow(self) -> None:
        self._ids, self._codes, self._durations, self._tags = (
            np.concatenate([column, np.empty_like(column)])
            for column in (self._ids, self._codes, self._durations, self._tags)
        )

    def _build(self) -> CatalogueSnapshot:
        held = slice(self._count)
        self._snapshot = CatalogueSnapshot.of(
            self._ids[held].copy(),
            self._codes[held].copy(),
            self._durations[held].copy(),
            (tuple(self._tag_sets), self._tags[held].copy()),
            code_count=self.code_count,
            offset=self.offset,
            codebook_version=self.codebook_version or 0,
        )
        self._new_rows.clear()
        self._new_owners.clear()
        self._stale = False
        self._built_at = time.monotonic()
        return self._snapshot


def as_numpy(dtype: torch.dtype) -> np.dtype[Any]:
    """The same in numpy."""
    return torch.empty(0, dtype=dtype).numpy().dtype


def _narrow(numbers: Integers, count: int) -> Integers:
    """Numbers below `count`, in as few bits as these need."""
    return narrowed(torch.from_numpy(numbers), count - 1).numpy()
