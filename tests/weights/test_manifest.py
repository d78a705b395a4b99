"""A manifest that is torn or hostile is refused whole, whatever its JSON is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from onerec.weights.errors import CorruptWeightsError
from onerec.weights.manifest import Manifest

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
        {"size_bytes": True},
        {"surplus": 1},
    ],
    ids=str,
)
def test_fields_of_another_kind_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(CorruptWeightsError, match="manifest of version 7 is torn or wrong"):
        Manifest.parse(json.dumps(json.loads(GOOD.to_json()) | change).encode(), 7)
