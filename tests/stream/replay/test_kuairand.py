"""The adapter of KuaiRand gives what its files say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from onerec.settings import LabelSettings
from schemas.labels import Label
from stream.replay.kuairand import DEFAULT_FOLDER, HISTORIES, LOG, KuaiRand, newest_matches
from stream.replay.log import Exposures, Histories, MissingFileError


def test_the_label_rule_is_the_flag_of_the_log() -> None:
    table = pq.read_table(DEFAULT_FOLDER / LOG)
    flag = table["long_view"].to_numpy() > 0
    rule = LabelSettings()
    views = zip(*(table[name].to_numpy().tolist() for name in ("play_time_ms", "duration_ms")), strict=True)
    assert np.array_equal([rule.is_long_view(*view) for view in views], flag)


def test_exposures_are_the_log_in_time_order(exposures: Exposures) -> None:
    assert len(exposures) == 166_932 - 3
    assert (np.diff(exposures.times_ms) >= 0).all()
    table = pq.read_table(DEFAULT_FOLDER / LOG)
    for column, label in (("is_like", Label.LIKE), ("is_forward", Label.SHARE), ("is_hate", Label.DISLIKE)):
        assert ((exposures.labels & np.uint8(label)) > 0).sum() == table[column].to_numpy().sum()


def test_histories_carry_items_and_labels(histories: Histories) -> None:
    table = pq.read_table(DEFAULT_FOLDER / HISTORIES)
    for row in (0, 2, 999, 26_468):
        mine = slice(histories.starts[row], histories.starts[row + 1])
        expected = table.slice(row, 1).to_pylist()[0]
        assert histories.user_ids[row] == expected["user_id"]
        assert histories.items[mine].tolist() == expected["watch_seq"]
        liked = {item for item, labels in zip(histories.items[mine], histories.labels[mine], strict=True) if labels & 2}
        assert liked == set(expected["like_seq"]) & set(expected["watch_seq"])
    assert len(histories) == 26_469
    assert not histories.times_ms.any()
    assert 0.35 < (histories.labels & Label.LONG_VIEW).mean() < 0.37


def test_histories_keep_the_newest(histories: Histories) -> None:
    short = KuaiRand().histories(3)
    assert np.diff(short.starts).max() == 3
    for row in (0, 2, 20_000):
        theirs = slice(max(histories.starts[row], histories.starts[row + 1] - 3), histories.starts[row + 1])
        assert short.items[short.starts[row] : short.starts[row + 1]].tolist() == histories.items[theirs].tolist()


def test_of_repeated_events_the_newest_are_flagged() -> None:
    events = np.array([5, 7, 5, 5, 9], dtype=np.int64)
    assert newest_matches(events, np.array([5, 5, 9, 4])).tolist() == [False, False, True, True, True]
    assert newest_matches(events, np.array([], dtype=np.int64)).tolist() == [False] * 5


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"log_0425_0504\.parquet does not exist.*--data"):
        KuaiRand(tmp_path).exposures()
