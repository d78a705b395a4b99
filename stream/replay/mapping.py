"""Anybody's own log: parquet or CSV files, and a small TOML file that says which columns are what.

[exposures]                        # one row for each item shown
path = "log.csv"                   # .parquet, .pq or CSV with a header; relative to this file
user = "user_id"                   # 64-bit integers, not negative
item = "video_id"                  # likewise
time = "shown_at"
time_unit = "ms"                   # ms or s since 1970, or iso (UTC where no zone is named)
watch = "played"                   # how long it was watched; leave out if unknown
watch_unit = "ms"                  # ms or s
duration = "length"                # how long the item is; else the items' own
duration_unit = "ms"
like = "is_like"                   # follow, comment, share and dislike likewise, each optional;
                                   # anything but 0, false, no and nothing is a yes
histories_before = "2022-04-25"    # earlier rows become histories, from which the seed model learns

[items]                            # one row an item
path = "items.parquet"
item = "video_id"
duration = "length"                # optional, as are the next
duration_unit = "ms"
author = "author_id"
tags = "tag"
tags_separator = ","
created = "uploaded"
created_unit = "iso"
embedding = "vector"               # a column of lists, or
embedding_prefix = "e_"            # columns e_0, e_1, …; with neither, embeddings are computed
                                   # from the histories and the attributes
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field, ValidationError

from onerec.settings import LabelSettings, Table
from schemas.labels import Label
from stream.replay.columns import ISO, Columns, flags
from stream.replay.embeddings import Attributes, embed
from stream.replay.log import Bytes, Exposures, Floats, Histories, Items, LogError, Longs, MissingFileError

REACTIONS = {
    "like": Label.LIKE,
    "follow": Label.FOLLOW,
    "comment": Label.COMMENT,
    "share": Label.SHARE,
    "dislike": Label.DISLIKE,
}


class ExposuresMapping(Table):
    """Which columns of the log are what."""

    path: Path
    user: str
    item: str
    time: str
    time_unit: str = "ms"
    watch: str | None = None
    watch_unit: str = "ms"
    duration: str | None = None
    duration_unit: str = "ms"
    like: str | None = None
    follow: str | None = None
    comment: str | None = None
    share: str | None = None
    dislike: str | None = None
    histories_before: str | None = None


class ItemsMapping(Table):
    """Which columns of the catalogue are what."""

    path: Path
    item: str
    duration: str | None = None
    duration_unit: str = "ms"
    author: str | None = None
    tags: str | None = None
    tags_separator: str = Field(",", min_length=1)
    created: str | None = None
    created_unit: str = ISO
    embedding: str | None = None
    embedding_prefix: str | None = None


class Mapping(Table):
    """The mapping file."""

    exposures: ExposuresMapping
    items: ItemsMapping


def read_mapping(path: Path) -> Mapping:
    """Read a mapping file; raises LogError naming the key that is missing, unknown or wrong."""
    if not path.is_file():
        raise MissingFileError(path, "Name the mapping's TOML file with --mapping.")
    try:
        return Mapping.model_validate(tomllib.loads(path.read_text()))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise LogError(f"{path} is no mapping: {wrong}.", "docs/replay.md lists the keys.") from error
    except (ValueError, RecursionError) as error:  # also text that is not UTF-8, numbers and nesting without end
        raise LogError(f"{path} is no TOML: {error}.", "Mend the file.") from error


class MappedLog:
    """A log read by a mapping."""

    def __init__(self, mapping: Mapping, folder: Path, labels: LabelSettings) -> None:
        """`folder` is where the mapping's paths start; `labels` says which views of the histories are long."""
        self._mapping = mapping
        self._labels = labels
        self._items = Columns(folder / mapping.items.path)
        self._log = Columns(folder / mapping.exposures.path)

    @classmethod
    def read(cls, path: Path, folder: Path | None, labels: LabelSettings) -> Self:
        """The log of a mapping file; paths start at `folder`, else beside the file."""
        return cls(read_mapping(path), folder or path.parent, labels)

    def items(self) -> Items:
        """The catalogue; embeddings are read, or computed of the histories where there is no column of them."""
        mapping, columns = self._mapping.items, self._items
        item_ids, count = self._item_ids(), len(columns)
        tags: tuple[tuple[str, ...], ...] = ((),) * count
        if mapping.tags is not None:
            tags = tuple(_split(text, mapping.tags_separator) for text in columns.texts(mapping.tags))
        authors = np.full(count, -1, dtype=np.int64) if mapping.author is None else columns.integers(mapping.author)
        created = np.zeros(count, dtype=np.int64)
        if mapping.created is not None:
            created = columns.times_ms(mapping.created, mapping.created_unit)
        durations_ms = columns.lengths_ms(mapping.duration, mapping.duration_unit)
        return Items(
            item_ids=item_ids,
            embeddings=self._embeddings(item_ids, Attributes(tags, authors, durations_ms)),
            durations_ms=durations_ms,
            author_ids=authors,
            tags=tags,
            created_ms=created,
        )

    def histories(self, last: int) -> Histories:
        """The exposures before `histories_before`, the `last` of each user; none where it is not set."""
        early, _ = self._split_log()
        labels = early.labels | _long_views(early, self._labels)
        by_user = np.argsort(early.user_ids, kind="stable")
        users, begins, counts = np.unique(early.user_ids[by_user], return_index=True, return_counts=True)
        age = np.repeat(begins + counts, counts) - np.arange(len(by_user))  # 1: the user's newest
        kept = by_user[age <= last]
        starts = np.concatenate(([0], np.cumsum(np.minimum(counts, last)))).astype(np.int64)
        times_ms = early.times_ms[kept]
        updated_ms = times_ms[starts[1:] - 1] if len(users) else times_ms
        return Histories(users, starts, early.item_ids[kept], times_ms, labels[kept], updated_ms)

    def exposures(self) -> Exposures:
        """The exposures from `histories_before` on, sorted by time."""
        return self._split_log()[1]

    def _item_ids(self) -> Longs:
        item_ids = self._items.integers(self._mapping.items.item, least=0)
        _, first = np.unique(item_ids, return_index=True)
        repeated = np.ones(len(item_ids), dtype=bool)
        repeated[first] = False
        self._items.refuse(repeated, self._mapping.items.item, item_ids, "is there twice", "Keep one row an item.")
        return item_ids

    def _split_log(self) -> tuple[Exposures, Exposures]:
        every = self._exposures()
        before = self._mapping.exposures.histories_before
        if before is None:
            return every.rows(slice(0, 0)), every
        try:
            split_ms = int(np.datetime64(before, "ms").astype(np.int64))
        except ValueError as error:
            raise LogError(f"histories_before {before} is no ISO date or time.", "Write it like 2022-04-25.") from error
        split = int(np.searchsorted(every.times_ms, split_ms))
        return every.rows(slice(0, split)), every.rows(slice(split, None))

    def _exposures(self) -> Exposures:
        mapping, columns = self._mapping.exposures, self._log
        item_ids = columns.integers(mapping.item, least=0)
        catalogue = self._item_ids()
        unknown = ~np.isin(item_ids, catalogue)
        columns.refuse(unknown, mapping.item, item_ids, "is not among the items", f"Add it to {self._items.path}.")
        exposures = Exposures(
            user_ids=columns.integers(mapping.user, least=0),
            item_ids=item_ids,
            times_ms=columns.times_ms(mapping.time, mapping.time_unit),
            watch_ms=columns.lengths_ms(mapping.watch, mapping.watch_unit),
            durations_ms=self._durations(item_ids, catalogue),
            labels=self._reactions(),
        )
        return exposures.rows(np.argsort(exposures.times_ms, kind="stable"))

    def _durations(self, item_ids: Longs, catalogue: Longs) -> Longs:
        mapping = self._mapping.exposures
        if mapping.duration is not None:
            return self._log.lengths_ms(mapping.duration, mapping.duration_unit)
        order = np.argsort(catalogue)
        lengths = self._items.lengths_ms(self._mapping.items.duration, self._mapping.items.duration_unit)
        return lengths[order][np.searchsorted(catalogue[order], item_ids)]

    def _reactions(self) -> Bytes:
        mapping = self._mapping.exposures
        named = {getattr(mapping, name): int(label) for name, label in REACTIONS.items()}
        return flags(self._log, {column: bit for column, bit in named.items() if column is not None})

    def _embeddings(self, item_ids: Longs, attributes: Attributes) -> Floats:
        mapping = self._mapping.items
        if mapping.embedding is not None:
            return self._items.vectors(mapping.embedding)
        if mapping.embedding_prefix is not None:
            return self._items.numbered(mapping.embedding_prefix)
        return embed(item_ids, self.histories(last=1_000_000), attributes)


def _split(text: str, separator: str) -> tuple[str, ...]:
    return tuple(tag.strip() for tag in text.split(separator) if tag.strip())


def _long_views(exposures: Exposures, rule: LabelSettings) -> Bytes:
    views = zip(exposures.watch_ms.tolist(), exposures.durations_ms.tolist(), strict=True)
    return np.array([Label.LONG_VIEW if rule.is_long_view(*view) else 0 for view in views], dtype=np.uint8)
