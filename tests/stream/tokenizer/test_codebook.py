"""The codebook file: what comes back, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onerec.errors import CheckFailedError, DependencyMissingError
from onerec.weights.folder import Folder
from stream.tokenizer import codebook as codebooks
from stream.tokenizer.codebook import Codebook, CorruptCodebookError
from tests.stream.tokenizer.items import codebook, embeddings


def test_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    folder, book = Folder(str(tmp_path)), codebook()
    codebooks.save(folder, book)
    loaded = codebooks.load(folder)
    assert (loaded.version, loaded.settings, loaded.sha256()) == (1, book.settings, book.sha256())
    np.testing.assert_array_equal(loaded.assign(embeddings(20, seed=5)), book.assign(embeddings(20, seed=5)))
    assert loaded.stored() == book.stored()
    assert (loaded.levels, loaded.size, loaded.width) == (3, 8, 4)


def test_the_newest_is_loaded_and_none_is_rewritten(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    with pytest.raises(DependencyMissingError, match="python -m stream codebook"):
        codebooks.load(folder)
    for version in (1, 2, 10):
        codebooks.save(folder, codebook(version=version))
    folder.write("codebooks/11.safetensors.half.part", b"")
    assert codebooks.versions(folder) == [1, 2, 10]
    assert codebooks.load(folder).version == 10
    assert codebooks.load(folder, 2).version == 2
    with pytest.raises(DependencyMissingError, match="no codebook 3"):
        codebooks.load(folder, 3)
    with pytest.raises(CheckFailedError, match="never rewritten"):
        codebooks.save(folder, codebook(version=2))
    folder.write("codebooks/12.safetensors", codebook(version=3).to_bytes())
    with pytest.raises(CorruptCodebookError, match="says that it is version 3"):
        codebooks.load(folder)


def test_a_flipped_byte_or_a_cut_is_seen() -> None:
    data = codebook().to_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    for place in (start + 1, start + len(data[start:]) // 2, len(data) - 1):
        damaged = bytearray(data)
        damaged[place] ^= 1
        with pytest.raises(CorruptCodebookError):
            Codebook.from_bytes(bytes(damaged), "x")
    for cut in (b"", data[:7], data[:100], data[:-1], b"\xff" * 64):
        with pytest.raises(CorruptCodebookError):
            Codebook.from_bytes(cut, "x")


@pytest.mark.parametrize("name", [b'"sha256"', b'"version"', b'"settings"', b'"format"'])
def test_a_header_without_one_of_its_fields_is_refused(name: bytes) -> None:
    data = codebook().to_bytes().replace(name, name.upper(), 1)
    with pytest.raises(CorruptCodebookError, match="it is no codebook file"):
        Codebook.from_bytes(data, "x")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"codes": np.full((60, 3), 8, np.int32)}, "outside of 0..7"),
        ({"codes": np.zeros((60, 3), np.int32)}, "share an id"),
        ({"item_ids": np.zeros(60, np.int64)}, "share an id"),
        ({"codes": np.zeros((60, 2), np.int32)}, "codes of shape"),
        ({"centroids": np.full((3, 8, 4), np.nan, np.float32)}, "not finite"),
        ({"centroids": np.zeros((8, 4), np.float32)}, "wrong shapes"),
    ],
)
def test_contradictions_are_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(CorruptCodebookError, match=says):
        Codebook.from_bytes(replace(codebook(), **change).to_bytes(), "x")
