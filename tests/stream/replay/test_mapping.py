"""Anybody's own log: read by a mapping, and every mistake named with file, column or row, and remedy."""

from __future__ import annotations

import textwrap
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from onerec.settings import LabelSettings
from schemas.labels import Label
from stream.replay import mapping as mapping_module
from stream.replay.log import LogError
from stream.replay.mapping import ExposuresMapping, ItemsMapping, MappedLog, Mapping, read_mapping

MAPPING = """
[exposures]
path = "log.csv"
user = "who"
item = "what"
time = "when"
time_unit = "iso"
watch = "seconds"
watch_unit = "s"
like = "liked"
dislike = "disliked"
histories_before = "2024-01-02"

[items]
path = "items.parquet"
item = "what"
duration = "length"
duration_unit = "s"
author = "by"
tags = "kinds"
tags_separator = "|"
created = "made"
embedding = "vector"
"""
LOG = """\
who,what,when,seconds,liked,disliked
7,101,2024-01-02T10:00:00,30.5,true,
8,102,2024-01-01T09:00:00,4,false,1
7,102,2024-01-02T09:59:00.250,,0,0
8,101,2024-01-01T10:00:00,19,no,0
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mapping.toml").write_text(MAPPING)
    (tmp_path / "log.csv").write_text(LOG)
    items = {
        "what": [101, 102],
        "length": [60, 5],
        "by": [1, 2],
        "kinds": ["cats| dogs", None],
        "made": ["2023-12-31", "2024-01-01T01:00:00"],
        "vector": [[1.0, 2.0], [3.0, 4.0]],
        "e_0": [0.5, 1.5],
    }
    pq.write_table(pa.table(items), tmp_path / "items.parquet")
    return tmp_path


def read(folder: Path) -> MappedLog:
    return MappedLog.read(folder / "mapping.toml", None, LabelSettings())


def change(folder: Path, name: str, old: str, new: str) -> Path:
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new))
    return folder


def test_exposures(folder: Path) -> None:
    exposures = read(folder).exposures()
    assert exposures.user_ids.tolist() == [7, 7]
    assert exposures.item_ids.tolist() == [102, 101]
    assert exposures.times_ms.tolist() == [1_704_189_540_250, 1_704_189_600_000]
    assert exposures.watch_ms.tolist() == [0, 30_500]
    assert exposures.durations_ms.tolist() == [5_000, 60_000]
    assert exposures.labels.tolist() == [0, Label.LIKE]


def test_earlier_exposures_are_histories(folder: Path) -> None:
    histories = read(folder).histories(50)
    assert histories.user_ids.tolist() == [8]
    assert histories.items.tolist() == [102, 101]
    assert histories.labels.tolist() == [Label.DISLIKE, Label.LONG_VIEW]
    assert histories.updated_ms.tolist() == [1_704_103_200_000]
    assert read(folder).histories(1).items.tolist() == [101]


def test_items(folder: Path) -> None:
    items = read(folder).items()
    assert items.item_ids.tolist() == [101, 102]
    assert items.durations_ms.tolist() == [60_000, 5_000]
    assert items.tags == (("cats", "dogs"), ())
    assert items.author_ids.tolist() == [1, 2]
    assert items.created_ms.tolist() == [1_703_980_800_000, 1_704_070_800_000]
    assert items.embeddings.tolist() == [[1, 2], [3, 4]]


def test_embeddings_of_numbered_columns(folder: Path) -> None:
    change(folder, "mapping.toml", 'embedding = "vector"', 'embedding_prefix = "e_"')
    assert read(folder).items().embeddings.tolist() == [[0.5], [1.5]]


def test_embeddings_are_computed_where_there_are_none(folder: Path) -> None:
    change(folder, "mapping.toml", 'embedding = "vector"', "")
    embeddings = read(folder).items().embeddings
    assert len(embeddings) == 2
    assert np.isfinite(embeddings).all()
    assert embeddings.any()


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (
            "mapping.toml",
            '"who"',
            '"whom"',
            r"log\.csv: column whom does not exist; there are who, what.*Mend the name",
        ),
        ("mapping.toml", 'user = "who"', "", r"exposures\.user: Field required"),
        ("mapping.toml", 'like = "liked"', 'likes = "liked"', r"exposures\.likes: Extra inputs"),
        ("mapping.toml", 'watch_unit = "s"', 'watch_unit = "h"', r"column seconds has the unit h\. Choose among ms, s"),
        ("mapping.toml", '"seconds"', '"liked"', r"column liked holds string, not numbers"),
        ("mapping.toml", '"2024-01-02"', '"yesterday"', r"histories_before yesterday is no ISO date"),
        ("mapping.toml", "log.csv", "lag.csv", r"lag\.csv does not exist.*`path`"),
        ("mapping.toml", "[items]", "[items", r"is no TOML"),
        ("log.csv", "7,101,", "7,999,", r"log\.csv row 1: what 999 is not among the items \(1 such rows\)\. Add it to"),
        ("log.csv", "8,101,", ",101,", r"log\.csv row 4: who \(nothing\) is missing"),
        ("log.csv", "8,102,", "-8,102,", r"log\.csv row 2: who -8 is below 0"),
        ("log.csv", ",4,", ",-4,", r"log\.csv row 2: seconds -4\.0 is negative"),
        ("log.csv", "8,102,", "eight,102,", r"column who holds string, not whole numbers.*Number users"),
        ("log.csv", "2024-01-01T09:00:00", "morning", r"column when .*not"),
        ("log.csv", "2024-01-01T09:00:00", "1969-01-01T09:00:00", r"row 2: when .*is no time since 1970"),
        ("log.csv", "8,102,", "8.5,102,", r"log\.csv row 2: who 8\.5 is no whole number"),
        ("log.csv", "8,102,", "9223372036854775808,102,", r"row 2: who 9\.22.*e\+18 is beyond 64 bits"),
        ("log.csv", ",4,", ",1e300,", r"row 2: seconds 1e\+303 is beyond 64 bits"),
        ("log.csv", "liked,disliked", "liked,liked", r"log\.csv has more than one column liked"),
        ("mapping.toml", '"liked"', '"when"', r"column when holds timestamp\[.*, not numbers"),
    ],
)
def test_mistakes_are_named(folder: Path, name: str, old: str, new: str, message: str) -> None:
    change(folder, name, old, new)
    with pytest.raises(LogError, match=message):
        read(folder).exposures()


def test_an_item_that_is_there_twice_is_named(folder: Path) -> None:
    pq.write_table(pa.table({"what": [101, 101], "vector": [[1.0], [2.0]]}), folder / "items.parquet")
    with pytest.raises(LogError, match=r"row 2: what 101 is there twice"):
        read(folder).items()


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ([[1.0, 2.0], [3.0]], r"row 2: vector 1 has another width than row 1 \(2\)"),
        ([["one"], ["two"]], r"column vector holds list<.*string>, not lists of numbers"),
        ([[1.0], [1e300]], r"row 2: vector inf … holds no finite vector"),
    ],
)
def test_embeddings_that_are_none_are_named(folder: Path, vectors: list[list[Any]], message: str) -> None:
    table = pq.read_table(folder / "items.parquet")
    place = table.column_names.index("vector")
    pq.write_table(table.set_column(place, "vector", pa.array(vectors)), folder / "items.parquet")
    with pytest.raises(LogError, match=message):
        read(folder).items()


def test_the_documented_mapping_is_one() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "replay.md").read_text()
    documented = page.split("```toml\n")[1].split("```")[0]
    mapping = Mapping.model_validate(tomllib.loads(documented))
    assert mapping.exposures.histories_before == "2022-04-25"
    described = textwrap.dedent(str(mapping_module.__doc__).split("\n", 1)[1])
    assert described.strip() == documented.strip()
    named = {key for table in (ExposuresMapping, ItemsMapping) for key in table.model_fields}
    assert {key for key in named if key not in documented} == set()


@pytest.mark.parametrize(
    "text", [b"\xff\xfe", b"a = " + b"[" * 5000, b"a = " + b"9" * 10_000], ids=["bytes", "deep", "long"]
)
def test_text_that_no_toml_parser_takes_is_said_in_a_sentence(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "mapping.toml").write_bytes(text)
    with pytest.raises(LogError, match="is no TOML"):
        read_mapping(tmp_path / "mapping.toml")
