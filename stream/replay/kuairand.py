"""Adapter for the part of KuaiRand-Pure that lies in data/kuairand-pure (Gao et al., CIKM 2022).

Histories and item embeddings are made of what is known before 25 April 2022, where the log begins; the
official counters of the videos sum over the whole month and are not used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.labels import Label
from stream.replay.embeddings import Attributes, embed
from stream.replay.log import Bytes, Exposures, Histories, Items, Longs, MissingFileError

DEFAULT_FOLDER = Path(__file__).resolve().parents[2] / "data" / "kuairand-pure"
LOG, HISTORIES, VIDEOS = "log_0425_0504.parquet", "histories_before_0425.parquet", "videos.parquet"
FLAGS = {
    "is_like": Label.LIKE,
    "is_follow": Label.FOLLOW,
    "is_comment": Label.COMMENT,
    "is_forward": Label.SHARE,
    "is_hate": Label.DISLIKE,
}


class KuaiRand:
    """The log of 25 April to 4 May 2022: 166,929 exposures, 24,076 users, 7,583 videos."""

    def __init__(self, folder: Path = DEFAULT_FOLDER) -> None:
        self.folder = folder

    def items(self) -> Items:
        """All videos, the most seen first, with embeddings of histories, tags, authors, music and length."""
        table = self._read(VIDEOS)
        item_ids = _longs(table["video_id"])
        durations_ms = _longs(table["video_duration"])  # NaN where unknown
        tags = tuple(tuple(tag for tag in str(row).split(",") if tag) for row in table["tag"].to_pylist())
        authors = _longs(table["author_id"])
        histories = self.histories(last=1_000_000)
        attributes = Attributes(tags=tags, authors=authors, durations_ms=durations_ms, music=_longs(table["music_id"]))
        items = Items(
            item_ids=item_ids,
            embeddings=embed(item_ids, histories, attributes),
            durations_ms=durations_ms,
            author_ids=authors,
            tags=tags,
            created_ms=_days(table["upload_dt"]),
        )
        return items.most_seen_first(histories)

    def histories(self, last: int) -> Histories:
        """The exposures before 25 April (at most 50 a user are in the file), with long views and likes; no times."""
        table = self._read(HISTORIES)
        users = _longs(table["user_id"])
        watched = _Lists.of(table["watch_seq"], last)
        keys = watched.keys(users)
        labels = np.zeros(len(keys), dtype=np.uint8)
        for column, label in (("long_watch_seq", Label.LONG_VIEW), ("like_seq", Label.LIKE)):
            labels[newest_matches(keys, _Lists.of(table[column]).keys(users))] |= np.uint8(label)
        return Histories(
            user_ids=users,
            starts=watched.starts,
            items=watched.values,
            times_ms=np.zeros_like(watched.values),
            labels=labels,
            updated_ms=_longs(table["last_time_ms"]),
        )

    def exposures(self) -> Exposures:
        """The exposures in time order, without the three that are in the histories already.

        The files are cut by day of the app's time zone, and a little apart: some histories end after the log begins.
        """
        table = self._read(LOG)
        exposures = Exposures(
            user_ids=_longs(table["user_id"]),
            item_ids=_longs(table["video_id"]),
            times_ms=_longs(table["time_ms"]),
            watch_ms=_longs(table["play_time_ms"]),
            durations_ms=_longs(table["duration_ms"]),
            labels=_flags(table),
        )
        return exposures.rows(np.flatnonzero(exposures.times_ms > self._history_ends_ms(exposures.user_ids)))

    def _history_ends_ms(self, users: Longs) -> Longs:
        """[E] when the history of each exposure's user ends; -1 where there is none."""
        table = self._read(HISTORIES)
        known, ends_ms = _longs(table["user_id"]), _longs(table["last_time_ms"])  # in order of user_id
        place = np.minimum(np.searchsorted(known, users), len(known) - 1)
        return np.where(known[place] == users, ends_ms[place], -1)

    def _read(self, name: str) -> pa.Table:
        path = self.folder / name
        if not path.is_file():
            raise MissingFileError(path, "Name the folder that holds KuaiRand-Pure's files with --data.")
        return pq.read_table(path)


class _Lists:
    """A column of lists as values [T] and starts [U + 1]."""

    def __init__(self, starts: Longs, values: Longs) -> None:
        self.starts = starts
        self.values = values

    @classmethod
    def of(cls, column: Any, last: int | None = None) -> _Lists:
        """The lists, or the `last` newest entries of each."""
        lists = column.combine_chunks()
        ends = np.cumsum(pc.list_value_length(lists).to_numpy(zero_copy_only=False).astype(np.int64))
        starts = np.concatenate(([0], ends)).astype(np.int64)
        values = lists.flatten().to_numpy(zero_copy_only=False).astype(np.int64)
        if last is None or not len(values):
            return cls(starts, values)
        kept = np.arange(len(values)) >= np.repeat(ends - last, np.diff(starts))
        lengths = np.minimum(np.diff(starts), last)
        return cls(np.concatenate(([0], np.cumsum(lengths))).astype(np.int64), values[kept])

    def keys(self, users: Longs) -> Longs:
        """One number for each pair of user and item, [T]."""
        return np.repeat(users, np.diff(self.starts)) * np.int64(1 << 32) + self.values


def newest_matches(events: Longs, flagged: Longs) -> npt.NDArray[np.bool_]:
    """Which events are the flagged ones: of a key that was flagged k times, its k newest events.

    The file gives the flagged events as lists of their own, without their place among all events; who saw a
    video twice (1 % of the events) leaves open which of the two was the long view.
    """
    backwards = events[::-1]
    order = np.argsort(backwards, kind="stable")
    ordered = backwards[order]
    begins = np.ones(len(ordered), dtype=bool)
    begins[1:] = ordered[1:] != ordered[:-1]
    firsts = np.flatnonzero(begins)
    age = np.arange(len(ordered)) - firsts[np.cumsum(begins) - 1]  # 0: the newest event with this key
    keys, counts = np.unique(flagged, return_counts=True)
    place = np.minimum(np.searchsorted(keys, ordered), max(len(keys) - 1, 0))
    times_flagged = np.where(keys[place] == ordered, counts[place], 0) if len(keys) else np.zeros(len(ordered))
    matches = np.zeros(len(events), dtype=bool)
    matches[order] = age < times_flagged
    return matches[::-1]


def _flags(table: pa.Table) -> Bytes:
    labels = np.zeros(table.num_rows, dtype=np.uint8)
    for column, label in FLAGS.items():
        labels |= np.where(table[column].to_numpy() > 0, np.uint8(label), np.uint8(0))
    return labels


def _longs(column: Any) -> Longs:
    return np.asarray(np.nan_to_num(column.to_numpy()), dtype=np.int64)


def _days(column: Any) -> Longs:
    """ISO days to ms since the epoch."""
    return np.array(column.to_pylist(), dtype="datetime64[ms]").astype(np.int64)
