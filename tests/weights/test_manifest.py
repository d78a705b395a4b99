"""A manifest that is torn or hostile is refused whole, whatever its JSON is."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from onerec.weights.errors import CorruptWeightsError
from onerec.weights.manifest import Manifest
from onerec.weights.record import record_of

GOOD = Manifest(
    version=7,
    kind="delta",
    parent=6,
    parent_sha256="ab" * 32,
    file="delta-0123456789ab.safetensors",
    sha256="cd" * 32,
    size_bytes=100,
    tensors={"a": ("F32", (40,))},
    created_ms=1,
    facts={"step": 3},
)


def test_a_good_one_comes_back() -> None:
    assert Manifest.parse(GOOD.to_json(), 7) == GOOD


@pytest.mark.parametrize(
    "change",
    [
        {"created_ms": None},
        {"created_ms": "now"},
        {"facts": [1]},
        {"facts": None},
        {"parent_sha256": "short"},
        {"parent_sha256": 5},
        {"tensors": {"a": ["F32", ["x"]]}},
        {"tensors": {"a": ["F32", [-1]]}},
        {"tensors": {"a": ["F32", [1.5]]}},
        {"tensors": {"a": ["F32", "ab"]}},
        {"facts": {"metrics": float("nan")}},
        {"facts": {"metrics": {"loss": "small"}}},
        {"facts": {"metrics": [1.5]}},
        {"size_bytes": True},
        {"size_bytes": 2**63},
        {"created_ms": 2**200},
        {"created_ms": -1},
        {"surplus": 1},
    ],
    ids=str,
)
def test_fields_of_another_kind_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(CorruptWeightsError, match="manifest of version 7 is torn or wrong"):
        Manifest.parse(json.dumps(json.loads(GOOD.to_json()) | change).encode(), 7)


def test_a_number_too_large_for_a_float_is_refused_as_infinity_is() -> None:
    with pytest.raises(CorruptWeightsError, match="1e999 is no number of JSON"):
        Manifest.parse(GOOD.to_json().replace(b'"step":3', b'"step":1e999'), 7)


@pytest.mark.parametrize(
    "change",
    [
        {"step": 2**63},
        {"step": -1},
        {"codebook_version": "one"},
        {"model": ""},
        {"offsets": 5},
        {"offsets": [["sessions", [], 7]]},
        {},
    ],
    ids=str,
)
def test_facts_that_make_no_record_are_refused(change: dict[str, Any]) -> None:
    facts = {"model": "m", "step": 3, "preset": "tiny", "codebook_version": 1, "offsets": [["sessions", 0, 7]]}
    manifest = dataclasses.replace(GOOD, facts=facts | change if change else {})
    with pytest.raises(CorruptWeightsError, match="The manifest of version 7"):
        record_of(manifest)
    assert record_of(dataclasses.replace(GOOD, facts=facts)).step == 3
